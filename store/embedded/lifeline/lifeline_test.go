package lifeline_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/evently/evently/store/embedded/lifeline"
)

// asParent makes the test's program one that starts a child and waits for it.
const asParent = "EVENTLY_TEST_AS_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) != "" {
		parent()
	}
	goleak.VerifyTestMain(m)
}

// childMax is how long the child lives whose parent's death it does not hear of.
const childMax = 20 * time.Second

// parent starts a child that holds its output open.
func parent() {
	child := exec.Command("sh", "-c", fmt.Sprintf("echo ready; exec sleep %.0f", childMax.Seconds()))
	child.Stdout = os.Stdout
	if err := lifeline.Start(child, syscall.SIGTERM, func() { fmt.Println(child.Wait()) }); err != nil {
		panic(err)
	}
	select {}
}

func TestStart_TheChildHearsOfTheDeathOfItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // nobody tells it
	}
	one := exec.CommandContext(t.Context(), os.Args[0])
	one.Env = append(os.Environ(), asParent+"=1")
	out, err := one.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("the child says %q (%v)", lines.Text(), lines.Err())
	}
	killed := time.Now()
	if err := one.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if lines.Scan() { // to the end, which is that of the child
		t.Errorf("it says %q", lines.Text())
	}
	if lived := time.Since(killed); lived > childMax/2 {
		t.Errorf("the child lived on for %s", lived)
	}
	if err := one.Wait(); err == nil {
		t.Error("the parent ended by itself")
	}
}

func TestStart_TellsWhatCannotBeStarted(t *testing.T) {
	err := lifeline.Start(exec.Command("/nowhere"), syscall.SIGKILL, func() { t.Error("attended") })
	if err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Error(err)
	}
}
