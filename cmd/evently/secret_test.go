package main

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWeakness_RefusesWhatCanBeGuessed(t *testing.T) {
	for _, secret := range []string{
		"", "secret", "short-but-random-9f8a7c", strings.Repeat("a", 64), strings.Repeat("ab", 32), strings.Repeat("hunter2-", 8),
		"your-256-bit-secret-your-256-bit-secret", "change-me-please-change-this-secret-key", "super-secret-jwt-key-for-development-only",
		"0123456789abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyzABCDEF", "111111111111112222222222222222333333",
		"0123456789abcdef0123456789abcdef", "a-string-secret-at-least-256-bits-long", "your-512-bit-secret-your-512-bit-secret",
		"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long", "correct horse battery staple correct horse battery",
		"a1a1a1a1a1b1b1b1b1b1a1a1a1b1b1a1b1", "Secret-Key-With-At-Least-32-Characters!", "ThisIsMySuperSecretJWTSigningKey123456",
		"tulip-harbour-42-tulip-harbour-42-evently",
	} {
		if weakness(secret) == "" {
			t.Errorf("%q passes", secret)
		}
	}
}

func TestWeakness_AcceptsRandomSecrets(t *testing.T) {
	source := rand.NewChaCha8([32]byte{1}) // the same every time: one in some 10 million random secrets is refused
	for range 10_000 {
		random := make([]byte, 48)
		if _, err := source.Read(random); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{
			hex.EncodeToString(random[:16]), hex.EncodeToString(random), base64.StdEncoding.EncodeToString(random),
			"evently-production-" + base64.RawURLEncoding.EncodeToString(random), base32.StdEncoding.EncodeToString(random),
		} {
			if reason := weakness(secret); reason != "" {
				t.Fatalf("%q %s", secret, reason)
			}
		}
	}
}

func TestWeakPassword(t *testing.T) {
	for password, weak := range map[string]bool{
		"Kd7-tulip-Vq2-harbour": false, "violet ox mends nine kites": false, "K9$wq2Lm#4tz": false,
		"short-Kd7": true, "password1234": true, "tulip-harbour-42": true, "correct horse battery": true, "changeme-changeme": true,
		"aaaaaaaaaaaaaaaa": true, "abcdefghijklmnop": true, "Xk3Xk3Xk3Xk3": true, "": true, "admin-admin-2026": true,
	} {
		if reason := weakPassword(password); (reason != "") != weak {
			t.Errorf("%q: %q", password, reason)
		}
	}
}

func TestWeakClusterKey(t *testing.T) {
	key := func(bytes string) string {
		return write(t, "key", base64.StdEncoding.EncodeToString([]byte(bytes))+"\n")
	}
	sequence := make([]byte, 32)
	for i := range sequence {
		sequence[i] = byte(i)
	}
	for name, path := range map[string]string{
		"zeros": key(strings.Repeat("\x00", 32)), "text": key("evently gossip key of 32 letters"), "sequence": key(string(sequence)),
		"period": key(strings.Repeat("\x01\x9f\x33\xe7", 8)), "few bytes": key(strings.Repeat("\x00\x00\xff\x00\xff", 4)[:16]),
	} {
		if weakClusterKey(path) == "" {
			t.Errorf("%s: passes", name)
		}
	}
	source := rand.NewChaCha8([32]byte{2})
	for i := range 10_000 {
		random := make([]byte, []int{16, 24, 32}[i%3])
		if _, err := source.Read(random); err != nil {
			t.Fatal(err)
		}
		if i >= 100 { // files are slow
			if reason := pattern(string(random)); reason != "" || surprise(string(random)) < 2*float64(len(random)) {
				t.Fatalf("%x %s", random, reason)
			}
		} else if reason := weakClusterKey(key(string(random))); reason != "" {
			t.Fatalf("%x %s", random, reason)
		}
	}
}

func TestProduction_RefusesUnsafeSettings(t *testing.T) {
	zeros := write(t, "key", base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n")
	known := write(t, "secret", "your-256-bit-secret-your-256-bit-secret\n")
	const url, secret = "postgres://u:p@127.0.0.1:1/db", "pJ5m/0a7kTq3vX9zWc1LrY8uBn4eHs6GdFo2"
	for _, c := range []struct {
		name string
		env  environment
		want string
	}{
		{"embedded database", environment{"JWT_SECRET": secret}, "database_url is not set"},
		{"no secret", environment{"DATABASE_URL": url}, "jwt_secret is not set"},
		{"short secret", environment{"DATABASE_URL": url, "JWT_SECRET": secret[:31]}, "jwt_secret has 31 bytes"},
		{"known secret", environment{"DATABASE_URL": url, "JWT_SECRET": strings.Repeat("changeme", 5)}, "jwt_secret consists of"},
		{
			"past secret",
			environment{"DATABASE_URL": url, "JWT_SECRET": secret, "EVENTLY_JWT_PAST_SECRETS": secret + ",old"},
			"jwt_past_secrets has 3 bytes",
		},
		{
			"codes without mail",
			environment{"DATABASE_URL": url, "JWT_SECRET": secret, "EVENTLY_REQUIRE_VERIFIED_EMAIL": "true"},
			"smtp_url is not set",
		},
		{"secret in a file", environment{"DATABASE_URL": url, "EVENTLY_JWT_SECRET_FILE": known}, "jwt_secret consists of well-known words"},
		{
			"cluster key",
			environment{"DATABASE_URL": url, "JWT_SECRET": secret, "EVENTLY_CLUSTER_KEY_FILE": zeros},
			"cluster_key_file repeats a few bytes",
		},
		{"password", environment{"DATABASE_URL": url, "JWT_SECRET": secret, "EVENTLY_ADMIN_PASSWORD": "password1234"}, "admin_password"},
	} {
		for _, command := range []string{"up", "serve"} {
			t.Run(c.name+"/"+command, func(t *testing.T) {
				c.env["EVENTLY_ENV"], c.env["EVENTLY_DATA_DIR"] = production, t.TempDir()
				if out := exec(t, exitUsage, c.env, command); !strings.Contains(out, c.want) {
					t.Errorf("%q does not say %q", out, c.want)
				}
			})
		}
	}
}

func TestKeptSecret_IsMadeOnceForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	first, err := keptSecret(dir, "jwt-secret", newPassword()+newPassword())
	if err != nil || weakness(first) != "" {
		t.Fatalf("made %q (%v)", first, err)
	}
	again, err := keptSecret(dir, "jwt-secret", "another")
	if err != nil || again != first {
		t.Errorf("then %q (%v), want %q again", again, err, first)
	}
	info, err := os.Stat(filepath.Join(dir, "jwt-secret"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
}
