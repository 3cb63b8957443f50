package main

import "testing"

func TestShareValue(t *testing.T) {
	for text, want := range map[string]int{"off": 0, "on": 1, "1/1": 1, "1/2": 2, "1/100": 100, "1/1000000": 1_000_000} {
		got, again := -1, -1
		if err := (shareValue{&got}).set(text); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
		if err := (shareValue{&again}).set(shareValue{&got}.String()); err != nil || again != want {
			t.Errorf("%s is written as %s, which reads as %d, %v", text, shareValue{&got}, again, err)
		}
	}
	for _, text := range []string{"", "1", "1/", "1/0", "1/-5", "2/100", "1/1000001", "1/x", "100", "1 / 100", "On"} {
		got := 7
		if err := (shareValue{&got}).set(text); err == nil || got != 7 {
			t.Errorf("%q: taken as %d", text, got)
		}
	}
}
