package proctest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/evently/evently/store/pgtest"
)

// programPackage is what is built. Tests run inside its module.
const programPackage = "github.com/evently/evently/cmd/evently"

// Exit codes of the program.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// program is where the built program is.
var program string

// Program returns the path of the program that Wrap has built.
func Program(t testing.TB) string {
	t.Helper()
	if program == "" {
		t.Fatal("proctest: TestMain has to call proctest.Wrap")
	}
	return program
}

// Wrap returns a runner that builds the program, runs the tests and removes it. It fits goleak.VerifyTestMain.
func Wrap(tests pgtest.Runner) pgtest.Runner { return building{tests} }

type building struct{ tests pgtest.Runner }

func (b building) Run() int {
	code, err := b.run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "proctest: %v\n", err)
		code = max(code, 1)
	}
	return code
}

func (b building) run() (code int, err error) {
	dir, err := os.MkdirTemp("", "evently-test-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "evently")
	// What `go run` has linked is kept in the cache of builds, so that of several packages of tests one links. It hands the program to cp.
	if out, err := exec.Command("go", "run", "-exec", "cp", programPackage, path).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the program: %w\n%s", err, out)
	}
	program = path
	defer func() { program = "" }()
	return b.tests.Run(), nil
}
