package config

import (
	"time"

	"github.com/v6node/v6node/internal/units"
)

// ParseSize reads a size as the configuration has it.
func ParseSize(s string) (int64, error) { return units.ParseSize(s) }

// ParseDuration reads a duration as the configuration has it.
func ParseDuration(s string) (time.Duration, error) { return units.ParseDuration(s) }

func clip(s string) string { return units.Clip(s) }
