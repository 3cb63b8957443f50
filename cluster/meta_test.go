package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
)

func TestMeta_SurvivesTheGossip(t *testing.T) {
	want := meta{
		Cluster: "evently", ID: "3XbdGX1tCZZ9gAEbkDCPYv", Host: "[2001:db8::1]", Port: 7947,
		Kinds: []string{"event", "limit"}, Start: 1_767_225_600_123,
	}
	data, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > memberlist.MetaMaxSize/2 {
		t.Errorf("%d bytes of %d: little is left for kinds", len(data), memberlist.MetaMaxSize)
	}
	got, err := decodeMeta(data, "evently")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want, got: %s", diff)
	}
	if got.addr() != "[2001:db8::1]:7947" || got.proto().Address() != got.addr() {
		t.Errorf("address %s, in Proto.Actor's terms %s", got.addr(), got.proto().Address())
	}
}

func TestMeta_TooLongIsRefused(t *testing.T) {
	if _, err := (meta{Kinds: []string{strings.Repeat("k", memberlist.MetaMaxSize)}}).encode(); err == nil {
		t.Error("encoded")
	}
}

func TestMeta_StrangersAreRefused(t *testing.T) {
	for _, text := range []string{
		``, `{`, `null`, `{"cluster":"other","id":"a","host":"h","port":1}`, `{"cluster":"evently","host":"h","port":1}`,
		`{"cluster":"evently","id":"a","port":1}`, `{"cluster":"evently","id":"a","host":"h"}`,
		`{"cluster":"evently","id":"a","host":"h","port":65536}`,
	} {
		if m, err := decodeMeta([]byte(text), "evently"); err == nil {
			t.Errorf("%s decoded to %+v", text, m)
		}
	}
}

func TestMeta_WhatALaterVersionAddsIsIgnored(t *testing.T) {
	m, err := decodeMeta([]byte(`{"cluster":"evently","id":"a","host":"h","port":1,"zone":"b","load":{"x":[1]}}`), "evently")
	if err != nil || m.ID != "a" {
		t.Errorf("got %+v, %v", m, err)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(`{"cluster":"evently","id":"a","host":"h","port":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMeta(data, "evently")
		if err == nil && (m.ID == "" || m.Host == "" || m.Port < 1 || m.Port > 65535 || m.Cluster != "evently") {
			t.Errorf("%q decoded to %+v", data, m)
		}
	})
}

func TestSplitAddr(t *testing.T) {
	for addr, want := range map[string]struct {
		host string
		port int
	}{"127.0.0.1:0": {"127.0.0.1", 0}, "[::1]:7947": {"[::1]", 7947}, "node-1.local:65535": {"node-1.local", 65535}} {
		if host, port, err := splitAddr(addr); host != want.host || port != want.port || err != nil {
			t.Errorf("%s: got %s, %d, %v", addr, host, port, err)
		}
	}
	for _, addr := range []string{"", "host", "::1:7947", "host:port!", "host:65536"} {
		if host, port, err := splitAddr(addr); err == nil {
			t.Errorf("%s: got %s, %d, want an error", addr, host, port)
		}
	}
}
