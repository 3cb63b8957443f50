package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// needRedis installs redis-server where it is missing and can be had: as root on Debian, and not with EVENTLY_PG_PROVISION=never.
// Elsewhere the test fails and tells how to get it.
func needRedis(t testing.TB) {
	t.Helper()
	if err := redisInstalled(); err != nil {
		t.Fatalf("%v: apt-get install redis-server: %v", ErrNoRedis, err)
	}
}

var redisInstalled = sync.OnceValue(func() error {
	if _, err := exec.LookPath("redis-server"); err == nil {
		return nil
	}
	if os.Getenv("EVENTLY_PG_PROVISION") == "never" || os.Getuid() != 0 {
		return errors.New("it may not be installed here")
	}
	// Debian's packages ask this program whether they may start what they install.
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return err
		}
		defer os.Remove(policy) //nolint:errcheck // it forbids no more than it did before this test
	}
	for _, args := range [][]string{
		{"update"},
		{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "redis-server"},
	} {
		if out, err := exec.CommandContext(context.Background(), "apt-get", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	_, err := exec.LookPath("redis-server")
	return err
})
