package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/alexedwards/argon2id"

	"github.com/evently/evently"
	"github.com/evently/evently/http"
)

// createAdmin adds an administrator. The error is evently.ErrEmailTaken when the address has an account.
func createAdmin(ctx context.Context, accounts evently.Accounts, email, password string) (*evently.User, error) {
	normal, err := http.NormalizeEmail(email)
	if err != nil {
		return nil, usageError{fmt.Errorf("admin_email: %q is not an e-mail address", email)}
	}
	hash, err := http.HashPassword(password)
	var refused *evently.Error
	if errors.As(err, &refused) {
		return nil, usageError{fmt.Errorf("admin_password: %s", refused.Fields)}
	}
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	user := &evently.User{
		ID: evently.UserID(random64()), Email: normal, Name: "Administrator", Role: evently.RoleAdmin, PasswordHash: hash,
		EmailVerified: true, CreatedAt: now,
	}
	return user, accounts.CreateUser(ctx, user, nil, &evently.Origin{At: now, UserAgent: "evently"})
}

// random64 is never zero.
func random64() uint64 {
	var raw [8]byte
	for {
		rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
		if n := binary.BigEndian.Uint64(raw[:]); n != 0 {
			return n
		}
	}
}

// adminLogin is how the first administrator signs in.
type adminLogin struct {
	user     *evently.User
	password string // "": known to those who chose it
	kept     string // file that holds the password, if it was generated
}

// firstAdmin returns the administrator of the settings, made when there is none. A password is generated and kept in the data
// directory when the settings have none.
func (c *Config) firstAdmin(ctx context.Context, accounts evently.Accounts, log *slog.Logger) (*adminLogin, error) {
	user, err := accounts.UserByEmail(ctx, strings.ToLower(strings.TrimSpace(c.AdminEmail)))
	if err != nil && !errors.Is(err, evently.ErrNotFound) {
		return nil, fmt.Errorf("look for the administrator: %w", err)
	}
	kept := filepath.Join(c.DataDir, adminPasswordFile)
	if user == nil {
		login := &adminLogin{password: c.AdminPassword}
		if login.password == "" {
			if login.password, err = keptSecret(c.DataDir, adminPasswordFile, newPassword()); err != nil {
				return nil, fmt.Errorf("keep the administrator's password: %w", err)
			}
			login.kept = kept
		}
		login.user, err = createAdmin(ctx, accounts, c.AdminEmail, login.password)
		if errors.Is(err, evently.ErrEmailTaken) { // another node was faster
			return c.firstAdmin(ctx, accounts, log)
		}
		if err != nil {
			return nil, fmt.Errorf("create the administrator: %w", err)
		}
		log.Info("administrator created", "email", login.user.Email)
		return login, nil
	}
	if user.Role != evently.RoleAdmin {
		log.Warn("the account of admin_email is no administrator", "email", user.Email, "role", user.Role)
	}
	login := &adminLogin{user: user}
	password, err := readSecretFile(kept)
	if errors.Is(err, fs.ErrNotExist) {
		return login, nil // whoever chose the password knows it
	}
	if err != nil {
		return nil, err
	}
	// The account may be older than the file: show no password that is not its own.
	same, err := argon2id.ComparePasswordAndHash(password, user.PasswordHash)
	if err != nil {
		return nil, fmt.Errorf("compare the administrator's password: %w", err)
	}
	if same {
		login.password, login.kept = password, kept
	}
	return login, nil
}
