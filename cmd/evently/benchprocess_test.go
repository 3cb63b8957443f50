package main

import (
	osexec "os/exec"
	"strings"
	"testing"
)

func TestBenchProcess_TellsWhyItEndedByItself(t *testing.T) {
	p := &benchProcess{cmd: osexec.Command("false"), exited: make(chan struct{}), tail: []string{"first", "panic: out of ink"}}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err == nil {
		t.Fatal("it did not fail")
	}
	close(p.exited)
	if err := p.stop(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "out of ink") {
		t.Errorf("%v, want its end and its last words", err)
	}
}
