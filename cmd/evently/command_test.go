package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

func TestRun_UsageErrorsExit2(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"", "which command?"},
		{"book", `unknown command "book"`},
		{"migrate", "which command?"},
		{"migrate sideways", `unknown command "sideways"`},
		{"config print extra", `unknown command "extra"`},
		{"serve --no-such-flag", "unknown flag: --no-such-flag"},
		{"serve", "database_url is not set"},
		{"version --json=perhaps", "invalid argument"},
		{"up --join=127.0.0.1:7946", "jwt_secret is not set"},
		{"up --remote-tls-ca-file=/ca.pem", "go together"},
		{"up --cluster-addr=0.0.0.0:7946", "cluster_advertise is not set"},
		{"up --remote-addr=:7947", "remote_advertise is not set"},
		{"up --hold-ttl=1500ms", "hold_ttl"},
		{"up --trusted-proxies=proxy.local", "trusted_proxies"},
		{"up --cors-origins=tickets.example", "cors_origins"},
		{"up --cluster-key-file=/nowhere", "cluster_key_file"},
		{"up --database-url=postgres://u:p@[", "database_url"},
		{"up --env=prod", "env (flag --env): must be one of"},
	} {
		if out := exec(t, exitUsage, environment{"HOME": t.TempDir()}, strings.Fields(c.line)...); !strings.Contains(out, c.want) {
			t.Errorf("evently %s says %q, want %q", c.line, out, c.want)
		}
	}
}

func TestRun_HelpExits0(t *testing.T) {
	for _, line := range []string{"--help", "help", "serve --help", "migrate --help"} {
		if out := exec(t, exitOK, nil, strings.Fields(line)...); !strings.Contains(out, "Usage:") {
			t.Errorf("evently %s prints %q", line, out)
		}
	}
}

func TestVersion_JSON(t *testing.T) {
	var got build
	if err := json.Unmarshal([]byte(exec(t, exitOK, nil, "version", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Version == "" || got.Go != runtime.Version() || got.OS != runtime.GOOS || got.Arch != runtime.GOARCH {
		t.Errorf("got %+v", got)
	}
	if out := exec(t, exitOK, nil, "version"); !strings.HasPrefix(out, "evently "+got.Version+" ") {
		t.Errorf("text form is %q", out)
	}
}

func TestCompletion_KnowsTheCommands(t *testing.T) {
	for _, name := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := exec(t, exitOK, nil, "completion", name); !strings.Contains(out, "evently") {
			t.Errorf("completion %s prints %q", name, out)
		}
	}
	out := exec(t, exitOK, nil, "__complete", "serve", "--http")
	if !strings.Contains(out, "--http-addr") {
		t.Errorf("completion of serve --http is %q", out)
	}
}
