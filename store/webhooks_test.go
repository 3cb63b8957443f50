package store

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

func TestWebhooks_KeptForTheirOwners(t *testing.T) {
	h := newHooks(t)
	ctx, ann, ben := t.Context(), h.user(evently.RoleOrganizer), h.user(evently.RoleOrganizer)
	webhook := h.hook(ann, evently.WebhookBookingConfirmed)
	if got, err := h.Webhook(ctx, ann, webhook.ID); err != nil || !cmp.Equal(got, webhook) {
		t.Errorf("%+v, %v; want %+v", got, err, webhook)
	}
	revision := &evently.Webhook{
		ID: webhook.ID, URL: "https://other.example.com", Description: "new", Types: evently.WebhookTypesAll, Ended: evently.WebhookPaused,
		UpdatedAt: h.now.Add(time.Minute),
	}
	for name, try := range map[string]func(owner evently.UserID, id evently.WebhookID) error{
		"read": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.Webhook(ctx, owner, id)
			return err
		},
		"deliveries": func(owner evently.UserID, id evently.WebhookID) error {
			_, _, err := h.Deliveries(ctx, owner, id, evently.Page{Limit: 10})
			return err
		},
		"revise": func(owner evently.UserID, id evently.WebhookID) error {
			revision := *revision
			revision.ID = id
			_, err := h.ReviseWebhook(ctx, owner, &revision)
			return err
		},
		"enable": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.EnableWebhook(ctx, owner, id, h.now)
			return err
		},
		"rotate": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.RotateSecret(ctx, owner, id, make([]byte, 32), h.now)
			return err
		},
		"ping": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.Ping(ctx, owner, id, 1, h.now)
			return err
		},
		"redeliver": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.Redeliver(ctx, owner, id, evently.DeliveryID{}, h.now)
			return err
		},
		"delete": func(owner evently.UserID, id evently.WebhookID) error { return h.DeleteWebhook(ctx, owner, id) },
	} {
		if err := try(ben, webhook.ID); !errors.Is(err, evently.ErrNotFound) {
			t.Errorf("%s of another owner's: %v", name, err)
		}
		if err := try(ann, webhook.ID+2); !errors.Is(err, evently.ErrNotFound) {
			t.Errorf("%s of none: %v", name, err)
		}
	}
	if got, err := h.Webhook(ctx, 0, webhook.ID); err != nil || !cmp.Equal(got, webhook) {
		t.Errorf("refused changes left %+v, %v; want %+v", got, err, webhook)
	}
	want := *webhook
	want.URL, want.Description, want.Types, want.UpdatedAt = revision.URL, revision.Description, revision.Types, revision.UpdatedAt
	want.Ended, want.EndedAt = evently.WebhookPaused, revision.UpdatedAt
	if got, err := h.ReviseWebhook(ctx, ann, revision); err != nil || !cmp.Equal(got, &want) {
		t.Errorf("revised %v: %s", err, cmp.Diff(&want, got))
	}
	want.Ended, want.EndedAt, want.UpdatedAt = evently.WebhookActive, time.Time{}, h.now.Add(2*time.Minute)
	for range 2 { // the second time changes nothing
		if got, err := h.EnableWebhook(ctx, ann, webhook.ID, h.now.Add(2*time.Minute)); err != nil || !cmp.Equal(got, &want) {
			t.Errorf("enabled %v: %s", err, cmp.Diff(&want, got))
		}
	}
	if err := h.DeleteWebhook(ctx, ann, webhook.ID); err != nil {
		t.Error(err)
	}
	if _, err := h.Webhook(ctx, ann, webhook.ID); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("deleted, and there: %v", err)
	}
}

func TestWebhooks_AreBoundedForEachOwner(t *testing.T) {
	h := newHooks(t)
	ann, ben := h.user(evently.RoleOrganizer), h.user(evently.RoleAdmin)
	var group sync.WaitGroup
	var mu sync.Mutex
	var made []evently.WebhookID
	full := 0
	for i := range 2 * evently.WebhooksMax {
		group.Go(func() {
			webhook := &evently.Webhook{
				ID: evently.WebhookID(i + 1), Owner: ann, URL: "https://a.example", Types: 2, CreatedAt: h.now.Add(time.Duration(i) * time.Millisecond),
			}
			created, err := h.CreateWebhook(t.Context(), webhook, make([]byte, 32))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, evently.ErrWebhooksFull):
				full++
			case err != nil:
				t.Error(err)
			default:
				made = append(made, created.ID)
			}
		})
	}
	group.Wait()
	if len(made) != evently.WebhooksMax || full != evently.WebhooksMax {
		t.Errorf("%d were made, %d refused", len(made), full)
	}
	if _, err := h.CreateWebhook(t.Context(), &evently.Webhook{ID: made[0], Owner: ann, CreatedAt: h.now}, make([]byte, 32)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := h.CreateWebhook(t.Context(), &evently.Webhook{ID: made[0], Owner: ben, CreatedAt: h.now}, make([]byte, 32)); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("another owner's id: %v", err)
	}
	h.hook(ben)
	slices.Sort(made)
	var listed []evently.WebhookID
	page := evently.Page{Limit: 7}
	for {
		list, next, err := h.Webhooks.Webhooks(t.Context(), ann, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, webhook := range list {
			listed = append(listed, webhook.ID)
		}
		if next == nil {
			break
		}
		page.After = next
	}
	if diff := cmp.Diff(made, listed); diff != "" {
		t.Errorf("(-made +listed):\n%s", diff)
	}
	if all, _, err := h.Webhooks.Webhooks(t.Context(), 0, evently.Page{Limit: 100}); err != nil || len(all) != evently.WebhooksMax+1 {
		t.Errorf("all: %d, %v", len(all), err)
	}
}

// Behind a pooler that forbids prepared statements.
func TestWebhooks_WithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	h := hooksOn(benchOn(t, openPool(t, with(pgtest.Database(t), "default_query_exec_mode=exec"), 8), JournalConfig{}))
	o := h.of(h.user(evently.RoleOrganizer), 1000)
	hook := h.hook(o.Ledger.Event().Organizer)
	h.consume(o.Ledger.Event().ID)
	h.drain(hook.ID)
	o.sell(webhookPendingMax/2 + 1)
	h.consume(o.Ledger.Event().ID)
	if got := h.count(`select count(*) from webhook_backlog`); got == 0 {
		t.Error("no backlog")
	}
	if h.record(h.claim(hook.ID), "http_500") != evently.WebhookActive {
		t.Error("a failure ended the webhook")
	}
	h.now = h.now.Add(2 * time.Hour)
	if got := len(h.drain(hook.ID)); got != webhookPendingMax+2 {
		t.Errorf("%d messages, want %d", got, webhookPendingMax+2)
	}
	list, _, err := h.Deliveries(t.Context(), 0, hook.ID, evently.Page{Limit: 1})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if _, err := h.Redeliver(t.Context(), 0, hook.ID, list[0].ID, h.now); err != nil {
		t.Error(err)
	}
	keep := defaultRetention.Webhooks
	if swept, err := NewRetention(h.bench.pool, discard).Sweep(t.Context(), h.now.Add(keep)); err != nil || swept.Deliveries == 0 {
		t.Errorf("%+v, %v", swept, err)
	}
}
