package main

import (
	"bytes"
	"strings"
	"testing"
)

// A warning is not written over by the line that tells how far the bench is.
func TestBenchProgress_WarningsStay(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		p := newBenchProgress(&out)
		p.terminal = terminal
		long := strings.Repeat("much to tell ", 20)
		p.say("starting")
		p.warn(long)
		p.say("1 of 2")
		if got := out.String(); !strings.Contains(got, "warning: "+long+"\n") || terminal && !strings.Contains(got, "\rwarning") {
			t.Errorf("on a terminal %v: %q", terminal, got)
		}
	}
}
