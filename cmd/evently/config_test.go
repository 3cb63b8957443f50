package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	eventlyhttp "github.com/evently/evently/http"
)

// environment is a fake one.
type environment map[string]string

func (e environment) get(name string) string { return e[name] }

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loaded reads the settings of a command line, and returns them by name with their sources.
func loaded(t *testing.T, env environment, args ...string) (*Config, map[string]resolved, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addFlags(flags, every)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	config, list, err := load(flags, env.get)
	byName := make(map[string]resolved)
	for _, r := range list {
		byName[r.name] = r
	}
	return config, byName, err
}

func TestLoad_TheFirstSourceCounts(t *testing.T) {
	secret := write(t, "secret", "from-file\n")
	file := write(t, "evently.yaml", "jwt_secret: from-config\nhold_ttl: 7m\n")
	secretFile := write(t, "evently.yaml", "jwt_secret_file: "+secret+"\n")
	// Each case has all the sources of the ones below it.
	for _, c := range []struct {
		name         string
		args         []string
		env          environment
		want, source string
	}{
		{
			"flag",
			[]string{"--jwt-secret=from-flag", "--jwt-secret-file=" + secret, "--config=" + file},
			environment{"EVENTLY_JWT_SECRET": "from-env", "JWT_SECRET": "plain"},
			"from-flag", "flag --jwt-secret",
		},
		{
			"flag of a file",
			[]string{"--jwt-secret-file=" + secret, "--config=" + file},
			environment{"EVENTLY_JWT_SECRET": "from-env", "JWT_SECRET": "plain"},
			"from-file", "flag --jwt-secret-file",
		},
		{
			"variable",
			[]string{"--config=" + file},
			environment{"EVENTLY_JWT_SECRET": "from-env", "JWT_SECRET": "plain", "EVENTLY_JWT_SECRET_FILE": secret},
			"from-env", "EVENTLY_JWT_SECRET",
		},
		{
			"plain variable",
			[]string{"--config=" + file},
			environment{"JWT_SECRET": "plain", "EVENTLY_JWT_SECRET_FILE": secret},
			"plain", "JWT_SECRET",
		},
		{
			"variable of a file",
			[]string{"--config=" + file},
			environment{"EVENTLY_JWT_SECRET": "", "EVENTLY_JWT_SECRET_FILE": secret},
			"from-file", "EVENTLY_JWT_SECRET_FILE",
		},
		{"config file", nil, environment{"EVENTLY_CONFIG": file}, "from-config", file + ":1"},
		{"config file of a file", nil, environment{"EVENTLY_CONFIG": secretFile}, "from-file", secretFile + ":1"},
		{"default", nil, nil, "", "default"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, list, err := loaded(t, c.env, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			if source := list["jwt_secret"].source; config.JWTSecret != c.want || source != c.source {
				t.Errorf("jwt_secret is %q from %q, want %q from %q", config.JWTSecret, source, c.want, c.source)
			}
		})
	}
}

func TestLoad_AFlagCanEmptyASetting(t *testing.T) {
	config, _, err := loaded(t, environment{"EVENTLY_JOIN": "10.0.0.1:7946"}, "--join=")
	if err != nil || len(config.Join) != 0 {
		t.Errorf("join is %q (%v), want none", config.Join, err)
	}
}

func TestLoad_ListsMayBeSequences(t *testing.T) {
	file := write(t, "evently.yaml", "join: [10.0.0.1:7946, 10.0.0.2:7946]\nhold_ttl: 90s\ncluster_quorum: 2\n")
	config, _, err := loaded(t, nil, "--config="+file)
	if err != nil || !slices.Equal(config.Join, []string{"10.0.0.1:7946", "10.0.0.2:7946"}) {
		t.Fatalf("join is %q (%v)", config.Join, err)
	}
	if config.HoldTTL.Seconds() != 90 || config.ClusterQuorum != 2 {
		t.Errorf("hold_ttl is %s, cluster_quorum is %d", config.HoldTTL, config.ClusterQuorum)
	}
}

func TestLoad_RefusalsNameSettingAndSource(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		env  environment
		want []string
	}{
		{
			"all at once", "",
			environment{"EVENTLY_HTTP_ADDR": "8080", "EVENTLY_ENV": "prod"},
			[]string{"http_addr (EVENTLY_HTTP_ADDR)", "env (EVENTLY_ENV)"},
		},
		{"port", "", environment{"EVENTLY_HTTP_ADDR": "127.0.0.1:99999"}, []string{"http_addr (EVENTLY_HTTP_ADDR)", "0 to 65535"}},
		{"duration", "", environment{"EVENTLY_HOLD_TTL": "10"}, []string{"hold_ttl (EVENTLY_HOLD_TTL)", "duration"}},
		{"bounds", "", environment{"EVENTLY_HOLD_TTL": "10ms"}, []string{"hold_ttl (EVENTLY_HOLD_TTL)", "1s to 168h"}},
		{"limit", "", environment{"EVENTLY_RATE_LIMIT_BOOK": "lots"}, []string{"rate_limit_book (EVENTLY_RATE_LIMIT_BOOK)", "10/1m"}},
		{"no file", "", environment{"EVENTLY_JWT_SECRET_FILE": "/nowhere"}, []string{"jwt_secret (EVENTLY_JWT_SECRET_FILE)", "/nowhere"}},
		{"unknown key", "http_adr: x\n", nil, []string{"config (EVENTLY_CONFIG)", `:1: unknown setting "http_adr"`}},
		{"nested", "http_addr: {port: 1}\n", nil, []string{"http_addr", "plain value"}},
		{"null", "env:\n", nil, []string{":1: env: has no value"}},
		{"twice", "env: production\nenv: development\n", nil, []string{"config (EVENTLY_CONFIG)", "already defined"}},
		{"two documents", "env: production\n---\nenv: development\n", nil, []string{"more than one document"}},
		{"no YAML", "env\n", nil, []string{"config (EVENTLY_CONFIG)"}},
		{"config in config", "config: other.yaml\n", nil, []string{`unknown setting "config"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := c.env
			if c.file != "" {
				env = environment{"EVENTLY_CONFIG": write(t, "evently.yaml", c.file)}
			}
			_, _, err := loaded(t, env)
			if !errors.As(err, new(usageError)) {
				t.Fatalf("got error %v, want a usage error", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestReadSecretFile(t *testing.T) {
	for content, want := range map[string]string{"s3cret\r\n": "s3cret", " s ": " s ", "\n": "", strings.Repeat("x", secretBytesMax+1): ""} {
		got, err := readSecretFile(write(t, "secret", content))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.10q gives %q (%v), want %q", content, got, err, want)
		}
	}
}

// The names that deployments rely on.
func TestSettings_PromisedNamesExist(t *testing.T) {
	known := make(map[string]bool)
	for _, s := range new(Config).settings() {
		known[s.variable()], known[s.plain] = true, true
		if s.secret {
			known[s.file().variable()] = true
		}
	}
	for _, name := range []string{
		"DATABASE_URL", "JWT_SECRET", "EVENTLY_DATABASE_URL", "EVENTLY_DATABASE_URL_FILE", "EVENTLY_JWT_SECRET", "EVENTLY_JWT_SECRET_FILE",
		"EVENTLY_HTTP_ADDR", "EVENTLY_ADMIN_ADDR", "EVENTLY_DATA_DIR", "EVENTLY_CLUSTER_ADDR", "EVENTLY_REMOTE_ADDR", "EVENTLY_JOIN",
		"EVENTLY_CLUSTER_KEY_FILE", "EVENTLY_RATE_LIMIT_BOOK", "EVENTLY_RATE_LIMIT_AUTH", "EVENTLY_REQUIRE_VERIFIED_EMAIL", "EVENTLY_HOLD_TTL", "EVENTLY_ADMIN_EMAIL",
		"EVENTLY_ADMIN_PASSWORD", "EVENTLY_ADMIN_PASSWORD_FILE", "EVENTLY_SMTP_URL", "EVENTLY_ENV", "EVENTLY_LOG_FORMAT", "EVENTLY_PG_PROVISION",
	} {
		if !known[name] {
			t.Errorf("no setting %s", name)
		}
	}
}

func TestSettings_DefaultsAreValidAndDocumented(t *testing.T) {
	for _, s := range new(Config).settings() {
		if s.fallback != "" {
			if err := s.value.set(s.fallback); err != nil || s.value.String() != s.fallback {
				t.Errorf("default of %s is %q, reads as %q (%v)", s.name, s.fallback, s.value, err)
			}
		}
		if s.group == 0 || s.help == "" || strings.ContainsAny(s.help+s.shown, "|\n") {
			t.Errorf("setting %s lacks a group or help that fits into a table", s.name)
		}
	}
}

func TestTokenSecrets_SignWithTheFirst(t *testing.T) {
	long := strings.Repeat("0123456789", 4)
	one := (&Config{JWTSecret: long, PastSecrets: []string{"short", long}}).tokenSecrets()
	two := (&Config{JWTSecret: "short", PastSecrets: []string{long}}).tokenSecrets()
	if len(one) != 2 || string(one[0].Key) != long || len(one[1].Key) < eventlyhttp.SecretBytesMin {
		t.Fatalf("got %+v, want the long one and a stretched short one, each once", one)
	}
	if len(two) != 2 || two[0].KID != one[1].KID || two[1].KID != one[0].KID || one[0].KID == one[1].KID {
		t.Errorf("names are %+v and %+v, want the same ones in the opposite order", one, two)
	}
}

func TestDefaultDataDir(t *testing.T) {
	for _, c := range []struct {
		env  environment
		root bool
		want string
	}{
		{environment{"XDG_DATA_HOME": "/xdg", "HOME": "/home/u"}, false, "/xdg/evently"},
		{environment{"XDG_DATA_HOME": "/xdg"}, true, "/xdg/evently"},
		{environment{"XDG_DATA_HOME": "relative", "HOME": "/home/u"}, false, "/home/u/.local/share/evently"},
		{environment{"HOME": "/root"}, true, "/var/lib/evently"},
		{environment{}, false, ""},
	} {
		if got := defaultDataDir(c.env.get, c.root); got != c.want {
			t.Errorf("data dir for %v (root: %t) is %q, want %q", c.env, c.root, got, c.want)
		}
	}
}

func TestConfigPrint_ShowsNoSecret(t *testing.T) {
	const secret = "postgres-or-token-or-password"
	env := environment{}
	for _, s := range new(Config).settings() {
		if s.secret {
			env[s.variable()] = secret
		}
	}
	for _, args := range [][]string{{"config", "print"}, {"config", "print", "--json"}} {
		out := exec(t, exitOK, env, args...)
		if strings.Contains(out, secret) || strings.Count(out, redacted) != len(env) {
			t.Errorf("%v shows a secret, or not that %d are set:\n%s", args, len(env), out)
		}
	}
}

func TestConfigPrint_JSONTellsSources(t *testing.T) {
	out := exec(t, exitOK, environment{"EVENTLY_HOLD_TTL": "1h30m0s"}, "config", "print", "--json", "--http-addr=:80")
	var rows []printed
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, want := range []printed{
		{"http_addr", ":80", "flag --http-addr"}, {"hold_ttl", "1h30m", "EVENTLY_HOLD_TTL"}, {"log_format", "text", "default"},
	} {
		if !slices.Contains(rows, want) {
			t.Errorf("no %+v in %s", want, out)
		}
	}
}

// exec runs a command line in this process and returns what it printed to standard output.
func exec(t *testing.T, wantExit int, env environment, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr, env.get); exit != wantExit {
		t.Fatalf("evently %s: exit %d, want %d; stdout:\n%s\nstderr:\n%s", strings.Join(args, " "), exit, wantExit, &stdout, &stderr)
	}
	if wantExit == exitOK {
		return stdout.String()
	}
	return stderr.String()
}
