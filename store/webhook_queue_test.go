package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently"
)

func TestWebhookQueue_ClaimsAreExclusiveUntilTheyRunOut(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer)
	o := h.of(organizer, 1000)
	o.sell(20)
	h.consume(o.Ledger.Event().ID)
	total := h.count(`select count(*) from webhook_deliveries`)
	var group sync.WaitGroup
	var mu sync.Mutex
	claimed := make(map[evently.DeliveryID]int)
	for range 8 {
		group.Go(func() {
			for {
				delivery, err := h.queue.Claim(t.Context(), webhook.ID, h.now, h.now.Add(30*time.Second))
				if err != nil {
					t.Error(err)
				}
				if delivery == nil {
					return
				}
				mu.Lock()
				claimed[delivery.ID]++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(claimed) != total {
		t.Errorf("%d of %d were claimed", len(claimed), total)
	}
	for id, times := range claimed {
		if times != 1 {
			t.Errorf("%s was claimed %d times", id, times)
		}
	}
	if h.now = h.now.Add(29 * time.Second); h.claim(webhook.ID) != nil || len(h.lanes()) != 0 {
		t.Error("claimed twice")
	}
	h.now = h.now.Add(time.Second)
	again := h.claim(webhook.ID)
	if again == nil || claimed[again.ID] != 1 || len(h.lanes()) != 1 {
		t.Fatalf("a claim that has run out gives %+v", again)
	}
	if err := h.queue.Unclaim(t.Context(), again, h.now); err != nil {
		t.Fatal(err)
	}
	ids := make(map[evently.DeliveryID]bool)
	for delivery := h.claim(webhook.ID); delivery != nil; delivery = h.claim(webhook.ID) {
		ids[delivery.ID] = true
		h.record(delivery, "")
	}
	if len(ids) != total || len(h.lanes()) != 0 {
		t.Errorf("%d of %d were delivered", len(ids), total)
	}
}

func TestWebhookQueue_OutcomesAreRecorded(t *testing.T) {
	h := newHooks(t)
	ctx := t.Context()
	webhook := h.hook(h.user(evently.RoleAdmin))
	ping := func(nonce uint64) *evently.Delivery {
		t.Helper()
		if _, err := h.Ping(ctx, 0, webhook.ID, nonce, h.now); err != nil {
			t.Fatal(err)
		}
		return h.claim(webhook.ID)
	}
	state := func() *evently.Webhook {
		t.Helper()
		got, err := h.Webhook(ctx, 0, webhook.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	delivery := ping(1)
	if delivery.Type != evently.WebhookPing || delivery.Tried != 0 || !strings.Contains(string(delivery.Payload), webhook.ID.String()) {
		t.Fatalf("%+v %s", delivery, delivery.Payload)
	}
	began := h.now
	for i := range evently.WebhookAttemptsKept + 5 {
		if ended := h.record(delivery, fmt.Sprint("fault ", i)); ended != evently.WebhookActive {
			t.Fatalf("attempt %d: %s", i, ended)
		}
		if since := state().FailingSince; !since.Equal(began) {
			t.Fatalf("failing since %s, want %s", since, began)
		}
		h.now = h.now.Add(time.Hour)
		if delivery = h.claim(webhook.ID); delivery == nil || delivery.Tried != i+1 {
			t.Fatalf("attempt %d: %+v", i, delivery)
		}
	}
	if n := len(delivery.Attempts); n != evently.WebhookAttemptsKept || delivery.Attempts[0].Fault != "fault 5" || delivery.Attempts[n-1].Fault != "fault 24" {
		t.Errorf("%d attempts: %+v", n, delivery.Attempts)
	}
	stale := *delivery
	h.record(delivery, "")
	if got := state(); !got.FailingSince.IsZero() {
		t.Errorf("%+v after a success", got)
	}
	// Somebody whose claim has run out says that it failed.
	h.record(&stale, "timeout")
	if list, _, err := h.Deliveries(ctx, 0, webhook.ID, evently.Page{Limit: 1}); err != nil || list[0].Status != evently.DeliveryDone || !list[0].DueAt.IsZero() {
		t.Errorf("%+v, %v", list[0], err)
	}

	// Nothing succeeds for five days.
	h.record(ping(2), "")
	h.record(ping(3), "status")
	h.now = h.now.Add(evently.WebhookFailingMax - time.Millisecond)
	if ended := h.record(ping(4), "status"); ended != evently.WebhookActive {
		t.Errorf("%s too early", ended)
	}
	h.now = h.now.Add(time.Millisecond)
	last := ping(5)
	if ended := h.record(last, "status"); ended != evently.WebhookDisabled {
		t.Errorf("%s after five days", ended)
	}
	if got := state(); got.Ended != evently.WebhookDisabled || !got.EndedAt.Equal(h.now) {
		t.Errorf("%+v", got)
	}
	if ended := h.record(last, "status"); ended != evently.WebhookActive {
		t.Errorf("%s twice", ended)
	}
	if _, err := h.Ping(ctx, 0, webhook.ID, 6, h.now); !errors.Is(err, evently.ErrWebhookDisabled) {
		t.Errorf("ping while it is disabled: %v", err)
	}
	if _, err := h.Redeliver(ctx, 0, webhook.ID, last.ID, h.now); !errors.Is(err, evently.ErrWebhookDisabled) {
		t.Errorf("redelivery while it is disabled: %v", err)
	}
	h.now = h.now.Add(time.Hour)
	if len(h.lanes()) != 0 || h.claim(webhook.ID) != nil {
		t.Error("something is due while it is disabled")
	}
	if got, err := h.EnableWebhook(ctx, 0, webhook.ID, h.now); err != nil || got.Ended != evently.WebhookActive || !got.FailingSince.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if len(h.lanes()) != 1 {
		t.Error("what waited is not due")
	}
	gone := h.claim(webhook.ID)
	if ended := h.record(gone, "gone"); ended != evently.WebhookGone || state().Ended != evently.WebhookGone {
		t.Errorf("410: %s, %+v", ended, state())
	}
	if load, err := h.queue.Load(ctx); err != nil || load.Active != 0 || load.Ended != 1 || load.Pending == 0 {
		t.Errorf("%+v, %v", load, err)
	}
}
