package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// seal keeps secrets unreadable in the database: AES-256-GCM with random nonces, under keys that HKDF derives from the program's
// secrets. The first one seals, any of them opens.
type seal []cipher.AEAD

// newSeal derives keys for one purpose, which nothing else is sealed for.
func newSeal(purpose string, secrets [][]byte) (seal, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret to seal with")
	}
	var s seal
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, purpose, 32)
		if err != nil {
			return nil, fmt.Errorf("derive a key: %w", err)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		s = append(s, aead)
	}
	return s, nil
}

// close seals plain; it opens only together with the same context.
func (s seal) close(plain []byte, context string) []byte {
	return s[0].Seal(nil, nil, plain, []byte(context))
}

var errSealed = errors.New("what is sealed does not open: the secret that sealed it is not among those of this node")

func (s seal) open(sealed []byte, context string) ([]byte, error) {
	for _, aead := range s {
		if plain, err := aead.Open(nil, nil, sealed, []byte(context)); err == nil {
			return plain, nil
		}
	}
	return nil, errSealed
}
