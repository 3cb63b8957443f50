package http

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	"golang.org/x/sync/semaphore"

	"github.com/evently/evently"
)

// Bounds of a password, in characters.
const (
	PasswordRunesMin = 8
	PasswordRunesMax = 256
)

// passwordParams are those that OWASP's password storage cheat sheet gives for argon2id with the least memory.
var passwordParams = &argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// decoyHash is checked when there is no user, so that the answer takes as long as for a wrong password. It has the form and the
// costs of a real one, and a key of zeros that no password leads to.
const decoyHash = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// HashPassword returns the argon2id hash of a password in the PHC string format. It takes some 30 ms of one core and
// 19 MiB. A password that is not valid UTF-8 or has not PasswordRunesMin to PasswordRunesMax characters is an *evently.Error.
func HashPassword(password string) (string, error) {
	var fields evently.FieldErrors
	checkPassword(&fields, "password", password)
	if err := fields.Err(); err != nil {
		return "", err
	}
	hash, err := argon2id.CreateHash(password, passwordParams)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

func checkPassword(fields *evently.FieldErrors, field, password string) {
	if n := utf8.RuneCountInString(password); n < PasswordRunesMin || n > PasswordRunesMax || !utf8.ValidString(password) {
		fields.Add(field, fmt.Sprintf("must have %d to %d characters", PasswordRunesMin, PasswordRunesMax))
	}
}

// passwordWaitMax bounds how long a request waits for its turn to hash. Whoever would wait longer is refused.
const passwordWaitMax = 2 * time.Second

// passwords hashes passwords, a few at a time: more would take cores and memory from all other requests.
type passwords struct {
	turns   *semaphore.Weighted
	metrics *metrics
}

func newPasswords(hashesMax int, metrics *metrics) *passwords {
	if hashesMax == 0 {
		hashesMax = runtime.GOMAXPROCS(0)
	}
	return &passwords{semaphore.NewWeighted(int64(hashesMax)), metrics}
}

func (p *passwords) hash(ctx context.Context, password string) (hash string, err error) {
	err = p.inTurn(ctx, func() error {
		hash, err = HashPassword(password)
		return err
	})
	return hash, err
}

func (p *passwords) matches(ctx context.Context, password, hash string) (match bool, err error) {
	err = p.inTurn(ctx, func() error {
		match, err = argon2id.ComparePasswordAndHash(password, hash)
		return err
	})
	return match, err
}

// inTurn does the work when it is its turn, or returns ErrOverloaded.
func (p *passwords) inTurn(ctx context.Context, work func() error) error {
	waiting, cancel := context.WithTimeout(ctx, passwordWaitMax)
	defer cancel()
	p.metrics.passwordQueue.Inc()
	err := p.turns.Acquire(waiting, 1)
	p.metrics.passwordQueue.Dec()
	if err != nil {
		return errors.Join(evently.ErrOverloaded, err)
	}
	defer p.turns.Release(1)
	p.metrics.passwords.Inc()
	return work()
}
