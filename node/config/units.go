package config

import (
	"time"

	"github.com/v6node/v6node/internal/units"
)

// ParseSize reads a size as the configuration has it.
func ParseSize(s string) (int64, error) { return units.ParseSize(s) }

// ParseDuration reads a duration as the configuration has it.
func ParseDuration(s string) (time.Duration, error) { return units.ParseDuration(s) }

// clip makes what a file says fit for a message. Passwords go first: of a long address the end would be missing by
// which they are known.
func clip(s string) string { return units.Clip(hideLogins(s)) }
