package main

import (
	"testing"
	"time"
)

func TestKeepValue(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "400d": 400 * day, "720h": 30 * day, "1000h30m": 1000*time.Hour + 30*time.Minute, "36500d": keepMax, "never": 0,
	} {
		var field time.Duration
		value := keepValue{&field, 30 * day}
		if err := value.set(text); err != nil || field != want {
			t.Errorf("%s: got %s (%v), want %s", text, field, err, want)
		}
		again := keepValue{new(time.Duration), 30 * day}
		if err := again.set(value.String()); err != nil || *again.field != want {
			t.Errorf("%s is shown as %s, which is %s (%v)", text, value, *again.field, err)
		}
	}
	for _, text := range []string{"", "0", "29d", "719h", "-400d", "1.5d", "d", "36501d", "99999999999999999999d", "forever", "400 d", "400days"} {
		field := time.Hour
		if err := (keepValue{&field, 30 * day}).set(text); err == nil || field != time.Hour {
			t.Errorf("%q: got %s (%v), want an error", text, field, err)
		}
	}
	for d, want := range map[time.Duration]string{day: "24h", 2 * day: "2d", 36 * time.Hour: "36h", 0: "never"} {
		if got := (keepValue{&d, 0}).String(); got != want {
			t.Errorf("%d is shown as %s, want %s", d, got, want)
		}
	}
}
