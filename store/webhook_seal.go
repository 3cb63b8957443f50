package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// webhookSeal keeps signing secrets unreadable in the database: AES-256-GCM under keys of HKDF from the program's secrets. The
// first one seals, any of them opens.
type webhookSeal struct{ keys []cipher.AEAD }

func newWebhookSeal(secrets [][]byte) (*webhookSeal, error) {
	if len(secrets) == 0 {
		return nil, errors.New("webhooks: no secret to seal with")
	}
	seal := new(webhookSeal)
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "evently webhook secret", 32)
		if err != nil {
			return nil, fmt.Errorf("webhooks: derive a key: %w", err)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("webhooks: make a key: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("webhooks: make a key: %w", err)
		}
		seal.keys = append(seal.keys, aead)
	}
	return seal, nil
}

// boundTo ties what is sealed to its webhook: in another row it does not open.
func boundTo(id evently.WebhookID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func (s *webhookSeal) seal(id evently.WebhookID, secret []byte) []byte {
	return s.keys[0].Seal(nil, nil, secret, boundTo(id))
}

var errSecretSealed = errors.New("the signing secret does not open: its token secret is not among those of this node")

func (s *webhookSeal) open(id evently.WebhookID, sealed []byte) ([]byte, error) {
	for _, key := range s.keys {
		if secret, err := key.Open(nil, nil, sealed, boundTo(id)); err == nil {
			return secret, nil
		}
	}
	return nil, errSecretSealed
}

const (
	sealedSecretsSQL = `
select webhook_id, secret, case when overlap_until > $3 then past_secret end, past_secret is not null
from webhooks where webhook_id > $1 order by webhook_id limit $2`

	// resealSQL leaves a secret alone that was replaced meanwhile.
	resealSQL = `update webhooks set secret = $3, past_secret = $4 where webhook_id = $1 and secret = $2`
)

// Reseal has all signing secrets sealed with the first of the secrets of this program, so that those before it can be dropped some
// time later, and forgets those whose overlap is over. It returns how many webhooks it changed. A secret that does not open is left.
func (s *Webhooks) Reseal(ctx context.Context, now time.Time) (changed int, err error) {
	for last := int64(math.MinInt64); ; {
		rows, err := s.pool.Query(ctx, sealedSecretsSQL, last, sweptRowsMax, now)
		if err != nil {
			return changed, failed(err, "read signing secrets")
		}
		type row struct {
			ID           int64
			Secret, Past []byte
			HadPast      bool
		}
		page, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		if err != nil {
			return changed, failed(err, "read signing secrets")
		}
		for _, r := range page {
			secret, renewed := s.seal.renew(evently.WebhookID(r.ID), r.Secret)
			past, pastRenewed := s.seal.renew(evently.WebhookID(r.ID), r.Past)
			if !renewed && !pastRenewed && r.HadPast == (r.Past != nil) {
				continue
			}
			tag, err := s.pool.Exec(ctx, resealSQL, r.ID, r.Secret, secret, past)
			if err != nil {
				return changed, failed(err, "seal signing secrets again")
			}
			changed += int(tag.RowsAffected())
		}
		if len(page) < sweptRowsMax {
			return changed, nil
		}
		last = page[len(page)-1].ID
	}
}

// renew returns what is sealed under the first key, and whether it was not before.
func (s *webhookSeal) renew(id evently.WebhookID, sealed []byte) (result []byte, renewed bool) {
	if sealed == nil {
		return nil, false
	}
	if _, err := s.keys[0].Open(nil, nil, sealed, boundTo(id)); err == nil {
		return sealed, false
	}
	secret, err := s.open(id, sealed)
	if err != nil {
		return sealed, false
	}
	return s.seal(id, secret), true
}
