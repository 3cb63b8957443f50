package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// newWebhookSeal derives the keys that signing secrets are sealed under.
func newWebhookSeal(secrets [][]byte) (seal, error) {
	s, err := newSeal("evently webhook secret", secrets)
	if err != nil {
		return nil, fmt.Errorf("webhooks: %w", err)
	}
	return s, nil
}

// boundTo ties what is sealed to its webhook: in another row it does not open.
func boundTo(id evently.WebhookID) (context string) {
	return string(binary.BigEndian.AppendUint64(nil, uint64(id)))
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
		type row struct {
			ID           int64
			Secret, Past []byte
			HadPast      bool
		}
		page, err := collect(rows, err, pgx.RowToStructByPos[row])
		if err != nil {
			return changed, failed(err, "read signing secrets")
		}
		for _, r := range page {
			secret, renewed := s.seal.renew(r.Secret, boundTo(evently.WebhookID(r.ID)))
			past, pastRenewed := s.seal.renew(r.Past, boundTo(evently.WebhookID(r.ID)))
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
func (s seal) renew(sealed []byte, context string) (result []byte, renewed bool) {
	if sealed == nil {
		return nil, false
	}
	if _, err := s[:1].open(sealed, context); err == nil {
		return sealed, false
	}
	plain, err := s.open(sealed, context)
	if err != nil {
		return sealed, false
	}
	return s.close(plain, context), true
}
