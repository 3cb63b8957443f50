package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds on a secret that production accepts.
const (
	secretBytesMin  = 32
	surpriseBitsMin = 90 // 32 random hexadecimal digits have 117, and fewer than 90 never in practice
)

// publicWords are secrets, and parts of secrets, that stand in manuals, in examples such as those of README.md and of jwt.io, and in
// word lists. They add nothing to a secret. Longer ones stand before the words that they contain.
var publicWords = []string{
	"a-string-secret-at-least-256-bits-long", "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
	"your-256-bit-secret", "your-384-bit-secret", "your-512-bit-secret", "correct horse battery staple", "correct horse battery",
	"tulip-harbour-42", "keyboard cat", "trustno1", "iloveyou", "football", "baseball", "princess", "sunshine", "hunter2",
	"changeit", "changeme", "change", "secret", "s3cr3t", "password", "passw0rd", "p@ssw0rd", "passwd", "passphrase", "evently", "jwt",
	"token", "admin", "default", "example", "sample", "development", "production", "staging", "test", "insecure", "unsafe", "placeholder",
	"replace", "please", "letmein", "qwerty", "welcome", "dragon", "monkey", "abc123", "foobar", "hello", "world", "dummy",
	"at-least", "minimum", "characters", "signing", "cluster", "gossip", "hs256", "hmac", "sha256", "bits", "bytes", "your", "this",
	"key", "with", "must", "super", "very", "long", "random", "string",
}

// meaningless takes the public words out of a text.
func meaningless(text string) string {
	rest := strings.ToLower(text)
	for _, word := range publicWords {
		rest = strings.ReplaceAll(rest, word, "")
	}
	return rest
}

// weakness says why a secret could be guessed, or nothing. It finds carelessness: no test can prove that a secret is random.
func weakness(secret string) string {
	switch {
	case len(secret) < secretBytesMin:
		return fmt.Sprintf("has %d bytes, fewer than %d", len(secret), secretBytesMin)
	case len(meaningless(secret)) < secretBytesMin/2:
		return "consists of well-known words"
	case surprise(secret) < surpriseBitsMin:
		return "repeats a few characters"
	}
	return pattern(secret)
}

// pattern says what is regular in a secret, or nothing.
func pattern(secret string) string {
	steps := 0
	for i := 1; i < len(secret); i++ {
		if secret[i]-secret[i-1]+1 <= 2 { // -1, 0 or 1: aaaa, 1234, dcba
			steps++
		}
	}
	switch {
	case period(secret) <= len(secret)/2:
		return "repeats itself"
	case 3*steps > 2*len(secret):
		return "is a sequence of characters"
	}
	return ""
}

// surprise is Shannon's entropy of a text whose characters were drawn as often as they stand in it, in bits for the whole of it.
func surprise(text string) (bits float64) {
	var counts [256]int
	for i := range len(text) {
		counts[text[i]]++
	}
	for _, n := range counts {
		if n > 0 {
			bits += float64(n) * math.Log2(float64(len(text))/float64(n))
		}
	}
	return bits
}

// weakClusterKey says why the key in a file could be guessed, or nothing. What is wrong with the file is found elsewhere.
func weakClusterKey(path string) string {
	text, err := readSecretFile(path)
	if err != nil {
		return ""
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	// Of random keys one in millions is all letters, digits and signs.
	typed := !slices.ContainsFunc(key, func(b byte) bool { return b < ' ' || b > '~' })
	switch {
	case typed:
		return "is a text in base64"
	case surprise(string(key)) < 2*float64(len(key)):
		return "repeats a few bytes"
	}
	return pattern(string(key))
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
	if c.ClusterKeyFile != "" {
		refuse("cluster_key_file", weakClusterKey(c.ClusterKeyFile))
	}
	if err := errors.Join(wrong...); err != nil {
		return usageError{err}
	}
	return nil
}

// passwordBytesMin is the length from which production accepts a password of people.
const passwordBytesMin = 12

func weakPassword(password string) string {
	if len(password) < passwordBytesMin || len(meaningless(password)) < passwordBytesMin*2/3 || pattern(password) != "" {
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
