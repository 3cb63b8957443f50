package store

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

func TestWebhooks_SecretsAreSealed(t *testing.T) {
	h := newHooks(t)
	webhook := h.hook(h.user(evently.RoleAdmin))
	first, second := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	for _, column := range []string{"secret", "past_secret"} {
		if n := h.count(`select count(*) from webhooks where position($1::bytea in `+column+`) > 0`, first); n != 0 {
			t.Errorf("%s has the secret as it is", column)
		}
	}
	if _, err := h.Ping(t.Context(), 0, webhook.ID, 1, h.now); err != nil {
		t.Fatal(err)
	}
	signing := func(secrets ...[]byte) (list [][]byte) {
		t.Helper()
		kept, err := NewWebhooks(h.bench.pool, secrets)
		if err != nil {
			t.Fatal(err)
		}
		lanes, err := (&WebhookQueue{h.bench.pool, kept.seal, discard}).Lanes(t.Context(), 0, 10, h.now)
		if err != nil || len(lanes) != 1 {
			t.Fatalf("%v, %v", lanes, err)
		}
		return lanes[0].Secrets
	}
	if diff := cmp.Diff([][]byte{first}, signing(sealSecret)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]byte{first}, signing(otherSecret, sealSecret)); diff != "" {
		t.Errorf("with the token secret in the past: %s", diff)
	}
	if got := signing(otherSecret); len(got) != 0 {
		t.Errorf("with another token secret: %x", got)
	}
	if _, err := NewWebhooks(h.bench.pool, nil); err == nil {
		t.Error("nothing to seal with, and no error")
	}
	// A day of two secrets.
	rotated, err := h.RotateSecret(t.Context(), 0, webhook.ID, second, h.now)
	if err != nil || !rotated.OverlapUntil.Equal(h.now.Add(24*time.Hour)) {
		t.Fatalf("%+v, %v", rotated, err)
	}
	if diff := cmp.Diff([][]byte{second, first}, signing(sealSecret)); diff != "" {
		t.Error(diff)
	}
	h.now = h.now.Add(24 * time.Hour)
	if diff := cmp.Diff([][]byte{second}, signing(sealSecret)); diff != "" {
		t.Errorf("a day later: %s", diff)
	}
	// What is sealed belongs to its row.
	other := h.hook(h.user(evently.RoleAdmin))
	h.exec(`update webhooks set secret = (select secret from webhooks where webhook_id = $1) where webhook_id = $2`, int64(other.ID), int64(webhook.ID))
	if got := signing(sealSecret); len(got) != 0 {
		t.Errorf("the secret of another webhook opens: %x", got)
	}
}

// A rotation of the token secret: a while later the former one is not needed any more.
func TestWebhooks_SecretsAreSealedAnew(t *testing.T) {
	h := newHooks(t)
	webhook, plain := h.hook(h.user(evently.RoleAdmin)), h.hook(h.user(evently.RoleAdmin))
	if _, err := h.RotateSecret(t.Context(), 0, webhook.ID, bytes.Repeat([]byte{8}, 32), h.now); err != nil {
		t.Fatal(err)
	}
	both, err := NewWebhooks(h.bench.pool, [][]byte{otherSecret, sealSecret})
	if err != nil {
		t.Fatal(err)
	}
	reseal := func(kept *Webhooks, want int) {
		t.Helper()
		if changed, err := kept.Reseal(t.Context(), h.now); err != nil || changed != want {
			t.Errorf("%d changed, %v; want %d", changed, err, want)
		}
	}
	reseal(h.Webhooks, 0)
	reseal(both, 2)
	reseal(both, 0)
	reseal(h.Webhooks, 0) // it cannot open them, and leaves them
	later, err := NewWebhooks(h.bench.pool, [][]byte{otherSecret})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[evently.WebhookID]int{webhook.ID: 2, plain.ID: 1} {
		if _, err := h.Ping(t.Context(), 0, id, 1, h.now); err != nil {
			t.Fatal(err)
		}
		lanes, err := (&WebhookQueue{h.bench.pool, later.seal, discard}).Lanes(t.Context(), id-1, 1, h.now)
		if err != nil || len(lanes) != 1 || len(lanes[0].Secrets) != want {
			t.Errorf("%+v, %v; want %d secrets", lanes, err, want)
		}
	}
	h.now = h.now.Add(evently.WebhookSecretOverlap)
	reseal(later, 1)
	reseal(later, 0)
	if n := h.count(`select count(*) from webhooks where past_secret is not null`); n != 0 {
		t.Errorf("%d webhooks keep a secret of the past", n)
	}
}
