package store

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

func TestWebhooks_DeliveriesAreListedAndSentAgain(t *testing.T) {
	h := newHooks(t)
	ctx := t.Context()
	webhook, other := h.hook(h.user(evently.RoleAdmin)), h.hook(h.user(evently.RoleAdmin))
	var want []evently.DeliveryID
	for i := range uint64(25) {
		if i%3 == 0 {
			h.now = h.now.Add(time.Second)
		}
		first, err := h.Ping(ctx, 0, webhook.ID, i+1, h.now)
		if err != nil {
			t.Fatal(err)
		}
		again, err := h.Ping(ctx, 0, webhook.ID, i+1, h.now)
		if err != nil || again.ID != first.ID {
			t.Fatalf("%+v, %v; want %s", again, err, first.ID)
		}
		want = append(want, first.ID)
	}
	if _, err := h.Ping(ctx, 0, other.ID, 1, h.now); err != nil {
		t.Fatal(err)
	}
	var got []evently.DeliveryID
	page := evently.Page{Limit: 4}
	for {
		list, next, err := h.Deliveries(ctx, 0, webhook.ID, page)
		if err != nil {
			t.Fatal(err)
		}
		for i, delivery := range list {
			if i > 0 && delivery.CreatedAt.After(list[i-1].CreatedAt) {
				t.Error("not newest first")
			}
			got = append(got, delivery.ID)
		}
		if next == nil {
			break
		}
		page.After = next
	}
	byDigits := func(a, b evently.DeliveryID) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(want, byDigits)
	slices.SortFunc(got, byDigits)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	delivery := h.claim(webhook.ID)
	h.record(delivery, "")
	h.now = h.now.Add(10 * 24 * time.Hour)
	again, err := h.Redeliver(ctx, 0, webhook.ID, delivery.ID, h.now)
	if err != nil || again.Status != evently.DeliveryPending || !again.DueAt.Equal(h.now) || !again.GiveUpAt.Equal(h.now.Add(evently.WebhookGiveUp)) ||
		len(again.Attempts) != 1 || again.Tried != 0 || !again.EndedAt.IsZero() {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := h.Redeliver(ctx, 0, other.ID, delivery.ID, h.now); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("redelivered to another webhook: %v", err)
	}
	for _, pending := range []int{webhookPendingMax - 27, 1} {
		h.exec(`
			insert into webhook_deliveries (delivery_id, webhook_id, type, event_id, seq, payload, created_at, due_at, give_up_at)
			select gen_random_uuid(), $1, 1, 1, 1, '', $2, $2, $2 from generate_series(1, $3)`, int64(webhook.ID), h.now, pending)
		_, pinged := h.Ping(ctx, 0, webhook.ID, 1000, h.now)
		_, redelivered := h.Redeliver(ctx, 0, webhook.ID, delivery.ID, h.now)
		if full := pending == 1; errors.Is(pinged, evently.ErrOverloaded) != full || errors.Is(redelivered, evently.ErrOverloaded) != full {
			t.Errorf("with %d more pending: %v, %v", pending, pinged, redelivered)
		}
	}
}
