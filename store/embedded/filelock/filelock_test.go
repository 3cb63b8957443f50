package filelock_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/evently/evently/store/embedded/filelock"
)

func try(t *testing.T, path string) *filelock.Lock {
	t.Helper()
	lock, err := filelock.Try(path)
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func expectHeld(t *testing.T, path string) {
	t.Helper()
	if _, err := filelock.Try(path); !errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("Try: %v, want ErrHeld", err)
	}
}

func TestTry_OneHolderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock := try(t, path)
	expectHeld(t, path)
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := try(t, path).Unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestTry_RemovedFileIsNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	old := try(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	fresh := try(t, path)
	expectHeld(t, path)
	if err := errors.Join(old.Unlock(), fresh.Unlock()); err != nil {
		t.Fatal(err)
	}
}

func TestTry_DoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Try(filepath.Join(dir, "lock")); err == nil || errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Try: %v, want a refusal", err)
	}
}

func TestWait_EndsWithTheContextOrTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock := try(t, path)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := filelock.Wait(canceled, path); !errors.Is(err, context.Canceled) || !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Wait: %v, want ErrHeld and context.Canceled", err)
	}
	result := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		lock, err := filelock.Wait(ctx, path)
		if err == nil {
			err = lock.Unlock()
		}
		result <- err
	}()
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestLeave_ChildHoldsTheLockToItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock := try(t, path)
	child := exec.Command("sh", "-c", "echo up; cat")
	child.ExtraFiles = []*os.File{lock.File()}
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	if err := lock.Leave(); err != nil {
		t.Fatal(err)
	}
	expectHeld(t, path)
	if err := errors.Join(stdin.Close(), child.Wait()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lock, err = filelock.Wait(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
}
