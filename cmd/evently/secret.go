package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Bounds on a secret that production accepts.
const (
	secretBytesMin    = 32
	secretDistinctMin = 8 // bytes that differ; 32 random hexadecimal digits have 14, and fewer than 8 never in practice
)

// publicWords are parts of secrets that stand in manuals, examples and word lists. They add nothing to a secret.
var publicWords = []string{
	"your-256-bit-secret", "keyboard cat", "changeit", "changeme", "change", "secret", "password", "passwd", "evently", "jwt",
	"token", "admin", "default", "example", "development", "production", "test", "insecure", "placeholder", "replace",
	"please", "letmein", "qwerty", "your", "this", "key", "with", "must", "super", "very", "long", "random", "string",
}

// weakness says why a secret could be guessed, or nothing. It finds carelessness: no test can prove that a secret is random.
func weakness(secret string) string {
	rest := strings.ToLower(secret)
	for _, word := range publicWords {
		rest = strings.ReplaceAll(rest, word, "")
	}
	distinct := map[byte]bool{}
	steps := 0
	for i := range len(secret) {
		distinct[secret[i]] = true
		if i > 0 && secret[i]-secret[i-1]+1 <= 2 { // -1, 0 or 1: aaaa, 1234, dcba
			steps++
		}
	}
	switch {
	case len(secret) < secretBytesMin:
		return fmt.Sprintf("has %d bytes, fewer than %d", len(secret), secretBytesMin)
	case len(rest) < secretBytesMin/2:
		return "consists of well-known words"
	case len(distinct) < secretDistinctMin:
		return "repeats a few characters"
	case period(secret) <= len(secret)/2:
		return "repeats itself"
	case 3*steps > 2*len(secret):
		return "is a sequence of characters"
	}
	return ""
}

// period is the least p > 0 with s[i] == s[i+p] wherever both exist: the failure function of Knuth, Morris and Pratt.
func period(s string) int {
	border := make([]int, len(s)+1)
	border[0] = -1
	for i := range len(s) {
		k := border[i]
		for k >= 0 && s[k] != s[i] {
			k = border[k]
		}
		border[i+1] = k + 1
	}
	return len(s) - border[len(s)]
}

// refuseUnsafe returns what production does not accept, as usage errors.
func (c *Config) refuseUnsafe() error {
	if c.Env != production {
		return nil
	}
	var wrong []error
	refuse := func(name, reason string) {
		if reason != "" {
			wrong = append(wrong, fmt.Errorf("%s %s: production needs one that cannot be guessed, such as from `openssl rand -base64 48`",
				name, reason))
		}
	}
	if c.DatabaseURL == "" {
		wrong = append(wrong, errors.New("database_url is not set: the embedded database is not for production"))
	}
	if c.JWTSecret == "" {
		refuse("jwt_secret", "is not set")
	} else {
		refuse("jwt_secret", weakness(c.JWTSecret))
	}
	for _, secret := range c.PastSecrets {
		refuse("jwt_past_secrets", weakness(secret))
	}
	if c.AdminPassword != "" {
		refuse("admin_password", weakPassword(c.AdminPassword))
	}
	if err := errors.Join(wrong...); err != nil {
		return usageError{err}
	}
	return nil
}

// passwordBytesMin is the length from which production accepts a password of people.
const passwordBytesMin = 12

func weakPassword(password string) string {
	rest := strings.ToLower(password)
	for _, word := range publicWords {
		rest = strings.ReplaceAll(rest, word, "")
	}
	if len(password) < passwordBytesMin || len(rest) < passwordBytesMin/2 || period(password) <= len(password)/2 {
		return fmt.Sprintf("is shorter than %d characters or made of well-known words", passwordBytesMin)
	}
	return ""
}

// keptSecret returns the secret kept in dir under a name; when there is none, fresh is kept from now on. Its file can be read by
// its owner alone.
func keptSecret(dir, name, fresh string) (secret string, err error) {
	path := filepath.Join(dir, name)
	secret, err = readSecretFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	// Renamed when complete, so that a crash leaves no half of a secret.
	partial := path + ".new"
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	file, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = file.WriteString(fresh + "\n")
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", err
	}
	return fresh, os.Rename(partial, path)
}

// newPassword is 128 random bits or more, in base 32.
func newPassword() string { return rand.Text() }
