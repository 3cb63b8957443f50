package main

import (
	"strings"
	"testing"
)

// The mails that stand for those of a server hold codes that set new passwords.
func TestServe_WarnsOfMailsThatOthersCanRead(t *testing.T) {
	const warning = "whoever reaches admin_addr can read all mails"
	serve := func(args ...string) string {
		t.Helper()
		return exec(t, exitFailed, nil, append([]string{
			"serve", "--database-url=postgres://127.0.0.1:1/evently", "--start-timeout=0s", "--data-dir=" + t.TempDir(), "--http-addr=127.0.0.1:0",
		}, args...)...)
	}
	if log := serve("--admin-addr=0.0.0.0:0"); !strings.Contains(log, warning) {
		t.Errorf("no warning:\n%s", log)
	}
	for _, args := range [][]string{
		{"--admin-addr=127.0.0.1:0"}, {"--admin-addr=0.0.0.0:0", "--smtp-url=smtp://127.0.0.1:2525", "--mail-from=a@example.org"},
	} {
		if log := serve(args...); strings.Contains(log, warning) {
			t.Errorf("%q:\n%s", args, log)
		}
	}
}
