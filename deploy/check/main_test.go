package check

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// scratch is a folder for what all tests share; contextOfTests ends with the last of them.
var (
	scratch        string
	contextOfTests context.Context
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "evently-check-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	var cancel context.CancelFunc
	contextOfTests, cancel = context.WithCancel(context.Background())
	defer cancel()
	return m.Run()
}
