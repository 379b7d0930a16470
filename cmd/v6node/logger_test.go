package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/node/config"
)

func TestTheLogsFormIsChosenOrFound(t *testing.T) {
	for _, c := range []struct {
		format  config.LogFormat
		journal bool
		want    string
	}{
		{config.LogAuto, false, "time=2"},
		{config.LogAuto, true, "<6>level=INFO msg=hello"},
		{config.LogText, true, "time=2"},
		{config.LogJSON, true, `{"time":"2`},
		{config.LogJournal, false, "<6>level=INFO msg=hello"},
	} {
		t.Run(fmt.Sprint(c.format, c.journal), func(t *testing.T) {
			file, err := os.Create(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			old := os.Stderr
			os.Stderr = file
			defer func() { os.Stderr = old }()
			t.Setenv("JOURNAL_STREAM", "")
			if c.journal {
				info, err := file.Stat()
				if err != nil {
					t.Fatal(err)
				}
				st := info.Sys().(*syscall.Stat_t)
				t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
			}
			newLogger(&config.Config{LogFormat: c.format}).Info("hello")
			if got, err := os.ReadFile(file.Name()); err != nil || !strings.HasPrefix(string(got), c.want) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
