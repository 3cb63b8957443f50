package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/evently/evently/store"
	"github.com/evently/evently/store/pgtest"
)

// eventlyPath is where the program is, built for the tests that need a process of its own.
var eventlyPath string

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(building{pgtest.Wrap(m, func(ctx context.Context, dsn string) error {
		return store.Migrate(ctx, dsn, slog.New(slog.DiscardHandler))
	})})
}

// building builds the program before the tests run.
type building struct{ tests pgtest.Runner }

func (b building) Run() int {
	dir, err := os.MkdirTemp("", "evently-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	eventlyPath = filepath.Join(dir, "evently")
	code := 1
	if out, err := osexec.Command("go", "build", "-o", eventlyPath, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
	} else {
		code = b.tests.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}
