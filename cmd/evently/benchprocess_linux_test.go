package main

import "testing"

func TestInMemory(t *testing.T) {
	for dir, want := range map[string]bool{"/dev/shm": true, "/proc": false, "/nowhere": false} {
		if got := inMemory(dir); got != want {
			t.Errorf("%s: %v", dir, got)
		}
	}
}
