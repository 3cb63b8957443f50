package evently

import (
	"strings"
	"testing"
	"testing/quick"
)

func TestWebhookTypes_NamesAndSets(t *testing.T) {
	all := WebhookTypesAll.List()
	if len(all) != len(webhookTypeNames)-1 || WebhookTypesAll.Has(WebhookPing) {
		t.Errorf("all are %v", all)
	}
	seen := make(map[string]bool)
	for _, one := range append(all, WebhookPing) {
		name := one.String()
		if parsed, err := ParseWebhookType(name); err != nil || parsed != one || seen[name] || name == "" {
			t.Errorf("%d is %q, which is %d, %v", one, name, parsed, err)
		}
		seen[name] = true
		var set WebhookTypes
		if set.Add(one); !set.Has(one) || len(set.List()) != 1 || set.List()[0] != one {
			t.Errorf("the set of %s is %v", one, set.List())
		}
	}
	for _, name := range []string{"", "PING", "booking.lost", "booking.confirmed ", WebhookType(200).String()} {
		if _, err := ParseWebhookType(name); err == nil {
			t.Errorf("%q is a type", name)
		}
	}
}

func TestWebhookIDs_RoundTrip(t *testing.T) {
	if err := quick.Check(func(id WebhookID, hi, lo uint64) bool {
		webhook, err := ParseWebhookID((id | 1).String())
		delivery, failed := ParseDeliveryID(DeliveryID{hi, lo}.String())
		return err == nil && webhook == id|1 && failed == nil && delivery == DeliveryID{hi, lo}
	}, nil); err != nil {
		t.Error(err)
	}
	for _, text := range []string{
		"", "whk_", "whk_0000000000000", "msg_0000000000001", "evt_0000000000001", "msg_" + strings.Repeat("z", 26), "msg_" + strings.Repeat("0", 25),
	} {
		if id, err := ParseWebhookID(text); err == nil {
			t.Errorf("%q is webhook %d", text, id)
		}
		if id, err := ParseDeliveryID(text); err == nil {
			t.Errorf("%q is delivery %v", text, id)
		}
	}
}

// Receivers tell repetitions by the id: it must stay what it is.
func TestNewDeliveryID_IsStable(t *testing.T) {
	if got, want := NewDeliveryID(1, 2, 3).String(), "msg_cmwvp3qdbzzybea4bgqr5gfxkv"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := make(map[DeliveryID]bool)
	for webhook := range WebhookID(5) {
		for event := range EventID(5) {
			for seq := range uint64(5) {
				seen[NewDeliveryID(webhook, event, seq)] = true
			}
		}
	}
	if len(seen) != 125 {
		t.Errorf("%d ids of 125 messages", len(seen))
	}
}

func TestWebhook_Validate(t *testing.T) {
	for name, test := range map[string]struct {
		webhook Webhook
		fields  string
	}{
		"right":      {Webhook{URL: "https://a.example", Types: WebhookTypesAll}, ""},
		"nothing":    {Webhook{}, "url events"},
		"ping":       {Webhook{URL: "https://a.example", Types: 1}, "events"},
		"unknown":    {Webhook{URL: "https://a.example", Types: 1 << 40}, "events"},
		"long":       {Webhook{URL: strings.Repeat("x", 2001), Description: strings.Repeat("x", 501), Types: 2}, "url description"},
		"not a text": {Webhook{URL: "https://\xff", Description: "\x00", Types: 2}, "url description"},
	} {
		var got []string
		if err, wrong := test.webhook.Validate().(*Error); wrong { //nolint:errorlint // it is not wrapped
			for _, field := range err.Fields {
				got = append(got, field.Field)
			}
		}
		if fields := strings.Join(got, " "); fields != test.fields {
			t.Errorf("%s: %q, want %q", name, fields, test.fields)
		}
	}
}
