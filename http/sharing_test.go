package http

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"github.com/evently/evently"
)

// sharingNode is a Server among others, in a bubble of fake time, with a route that Config.BookLimit limits.
type sharingNode struct {
	*Server
	token string // of one user, whom all nodes know
}

// sharingNodes starts nodes that tell each other what they allow, unless lost says that a message is lost on the way.
func sharingNodes(t *testing.T, count int, limit Limit, lost func(from, to int) bool) []*sharingNode {
	t.Helper()
	nodes := make([]*sharingNode, count)
	for from := range nodes {
		config := newConfig()
		config.Now = time.Now
		config.BookLimit = limit
		config.Membership = func() Membership { return Membership{Members: count} }
		config.Share = func(body []byte) {
			for to := range nodes {
				if to != from && !lost(from, to) {
					nodes[to].TakenElsewhere(fmt.Sprint("node ", from), body)
				}
			}
		}
		server, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.mount([]route{{method: "POST", path: "/limited", handle: okHandler, access: accountOwn, limit: limitBook}}); err != nil {
			t.Fatal(err)
		}
		token, err := server.tokens.sign(evently.Principal{User: 7, Session: evently.SessionID{1}})
		if err != nil {
			t.Fatal(err)
		}
		nodes[from] = &sharingNode{server, token}
	}
	for _, node := range nodes {
		t.Cleanup(node.startSharing())
	}
	return nodes
}

func never(int, int) bool { return false }

func always(int, int) bool { return true }

// allows asks for one booking and reports whether the limit lets it pass.
func (n *sharingNode) allows(t *testing.T) bool {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), "POST", "/limited", nil)
	request.Header.Set("Authorization", "Bearer "+n.token)
	answer := httptest.NewRecorder()
	n.Handler().ServeHTTP(answer, request)
	switch answer.Code {
	case http.StatusNoContent:
		return true
	case http.StatusTooManyRequests:
		if told := answer.Header().Get("RateLimit"); !strings.HasPrefix(told, `"book";r=0;t=`) {
			t.Errorf("refused with RateLimit %s", told)
		}
		return false
	}
	t.Fatalf("%d %s", answer.Code, answer.Body)
	return false
}

func TestSharing_OneLimitForAUserWhoAlternates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := sharingNodes(t, 3, Limit{10, time.Minute}, never)
		allowed := 0
		for i := range 60 {
			if nodes[i%3].allows(t) {
				allowed++
			}
			after(2 * sharePeriod)
		}
		// Ten at once, and two that are earned in these 12 s: the first six seconds after the first one, and so on.
		if allowed != 11 && allowed != 12 {
			t.Errorf("%d were allowed in 12 s, want 11 or 12", allowed)
		}
	})
}

// A user who asks all nodes all the time gets a limit at each at once, and over time what one limit gives.
func TestSharing_WhatWasTooMuchIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodesCount, minutes = 3, 12
		limit := Limit{10, time.Minute}
		nodes := sharingNodes(t, nodesCount, limit, never)
		storm := func() (allowed int) {
			for _, node := range nodes {
				for node.allows(t) {
					allowed++
				}
			}
			return allowed
		}
		total := storm()
		if total != nodesCount*limit.Requests {
			t.Fatalf("%d were allowed at once, want a limit at each of %d nodes", total, nodesCount)
		}
		begun := time.Now()
		for elapsed := time.Duration(0); elapsed < minutes*time.Minute; elapsed = time.Since(begun) {
			after(sharePeriod / 2)
			total += storm()
			// What is earned, and at once a limit at each node.
			if most := int(elapsed/(6*time.Second)) + nodesCount*limit.Requests + 1; total > most {
				t.Fatalf("%d were allowed within %s, more than %d", total, elapsed, most)
			}
			// The burst is made up for: two windows of silence follow.
			if elapsed < 2*time.Minute-time.Second && total != nodesCount*limit.Requests {
				t.Fatalf("%d were allowed within %s", total, elapsed)
			}
		}
		// Each node may have allowed what the others earned in a sharing period, of which there is at most one unheard of.
		earned := limit.Requests + minutes*limit.Requests
		if total < earned-1 || total > earned+nodesCount {
			t.Errorf("%d were allowed in %d minutes, want about %d", total, minutes, earned)
		}
	})
}

func TestSharing_WithoutWordTheLimitIsOfEachNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := Limit{10, time.Minute}
		nodes := sharingNodes(t, 2, limit, always)
		var allowed [2]int
		for range 5 * 60 {
			for i, node := range nodes {
				if node.allows(t) {
					allowed[i]++
				}
			}
			after(time.Second)
		}
		if want := limit.Requests + 5*limit.Requests - 1; allowed != [2]int{want, want} {
			t.Errorf("%v were allowed in 5 minutes, want %d on each node", allowed, want)
		}
	})
}

func TestSharing_OnlyWhatIsAllowedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := sharingNodes(t, 2, Limit{2, time.Minute}, never)
		for range 5 {
			nodes[0].allows(t)
		}
		after(2 * sharePeriod)
		if _, wait := nodes[1].bookLimiter.take(7, time.Now()); wait <= 0 || wait > time.Minute/2 {
			t.Errorf("the other node says to wait %s, want less than the 30 s in which one is earned", wait)
		}
		// Once told, nothing is told again; and nothing is told of users who ask for nothing.
		after(time.Minute)
		if told, heard := nodes[0].sharesTold(), testutil.ToFloat64(nodes[1].metrics.shares.WithLabelValues("heard")); told != 1 || heard != 1 {
			t.Errorf("%v messages told, %v heard; want 1", told, heard)
		}
	})
}

func (n *sharingNode) sharesTold() float64 {
	return testutil.ToFloat64(n.metrics.shares.WithLabelValues("told"))
}

// The rest is told when the server ends, and from then on nothing.
func TestServe_SharesUntilItsEnd(t *testing.T) {
	told := make(chan []byte, 10)
	w := newSite(t, func(config *Config) {
		config.BookLimit = Limit{10, time.Minute}
		config.Share = func(body []byte) { told <- body }
	}, route{method: "POST", path: "/limited", handle: okHandler, access: accountOwn, limit: limitBook})
	token, who := w.token(t, evently.RoleUser)
	s := serve(t, w, w.server.Serve)
	ask := func() {
		t.Helper()
		if a := w.do(t, "POST", "/limited", "", "Authorization", token); a.status != http.StatusNoContent {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	ask()
	ask()
	next := func() []allowance[evently.UserID] {
		t.Helper()
		select {
		case body := <-told:
			return wellFormed(t, body)
		case <-time.After(10 * time.Second):
			t.Fatal("not told after 10 s")
			return nil
		}
	}
	for count := uint32(0); count < 2; {
		for _, entry := range next() {
			if count += entry.count; entry.key != who.User {
				t.Errorf("told of %s", entry.key)
			}
		}
	}
	ask()
	s.stop()
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	if last := next(); len(last) != 1 || last[0] != (allowance[evently.UserID]{who.User, 1}) {
		t.Errorf("at last told %v", last)
	}
	if len(told) != 0 {
		t.Errorf("%d more messages", len(told))
	}
}

func wellFormed(t *testing.T, body []byte) []allowance[evently.UserID] {
	t.Helper()
	allowed, err := parseShare(body)
	if err != nil {
		t.Fatal(err)
	}
	return allowed
}

func TestSharing_MessagesAreBounded(t *testing.T) {
	var told [][]byte
	w := newSite(t, func(config *Config) {
		config.BookLimit = Limit{10, time.Minute}
		config.Share = func(body []byte) { told = append(told, body) }
	})
	const users = shareUsersMax + 1000
	for user := range evently.UserID(users) {
		w.server.bookLimiter.take(user+1, w.clock.Now())
		w.server.bookLimiter.take(user+1, w.clock.Now())
	}
	var all []allowance[evently.UserID]
	for range 3 {
		w.server.share()
	}
	for _, body := range told {
		if len(body) > 768<<10+shareHeadBytes {
			t.Errorf("a message has %d bytes", len(body))
		}
		all = append(all, wellFormed(t, body)...)
	}
	if len(told) != 2 || len(all) != users {
		t.Fatalf("%d messages with %d users, want 2 with %d", len(told), len(all), users)
	}
	for i, entry := range all {
		if entry != (allowance[evently.UserID]{evently.UserID(i + 1), 2}) {
			t.Fatalf("user %d: told %v", i+1, entry)
		}
	}
}

// Nobody asks for what is to be told: the memory for it is bounded all the same.
func TestSharing_WhatIsToBeToldIsBounded(t *testing.T) {
	w := newSite(t, func(config *Config) {
		config.BookLimit = Limit{10, time.Minute}
		config.Share = func([]byte) {}
	})
	limiter, lost := w.server.bookLimiter, w.server.metrics.sharesLost
	for user := range evently.UserID(limitKeysMax + 10) {
		limiter.take(user+1, w.clock.Now())
	}
	if len(limiter.untold) != limitKeysMax || testutil.ToFloat64(lost) != 10 {
		t.Errorf("%d users are to be told of and %v bookings are lost, want %d and 10", len(limiter.untold), testutil.ToFloat64(lost), limitKeysMax)
	}
	if allowed := limiter.tell(limitKeysMax); len(allowed) != limitKeysMax-10 || testutil.ToFloat64(lost) != 20 {
		t.Errorf("told of %d users, %v lost; the first 10 are forgotten", len(allowed), testutil.ToFloat64(lost))
	}
	limiter.take(1, w.clock.Now())
	if allowed := limiter.tell(limitKeysMax); !slices.Equal(allowed, []allowance[evently.UserID]{{1, 1}}) {
		t.Errorf("told of %v, want one booking of one user", allowed)
	}
}

// However much a message says, a user owes a limit for each member at the most.
func TestSharing_DebtIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		limit   Limit
		members int
		want    time.Duration
	}{
		"of two at least":     {Limit{10, time.Minute}, 0, 2 * (time.Minute + time.Second)},
		"of five members":     {Limit{10, time.Minute}, 5, 5 * (time.Minute + time.Second)},
		"of the longest":      {Limit{1, 24 * time.Hour}, 3, 3 * (24*time.Hour + time.Second)},
		"of the quickest":     {Limit{limitRequestsMax, time.Second}, 3, 6 * time.Second},
		"of members no end":   {Limit{1, 24 * time.Hour}, math.MaxInt, shareNodesMax * (24*time.Hour + time.Second)},
		"of members below 0":  {Limit{10, time.Minute}, -1, 2 * (time.Minute + time.Second)},
		"of nobody's members": {Limit{10, time.Minute}, -2, 2 * (time.Minute + time.Second)},
	} {
		w := newSite(t, func(config *Config) {
			config.BookLimit = c.limit
			if c.members != -2 {
				config.Membership = func() Membership { return Membership{Members: c.members} }
			}
		})
		limiter := w.server.bookLimiter
		for _, count := range []uint32{1, math.MaxUint32, 1, math.MaxUint32} {
			body := newShare([]allowance[evently.UserID]{{7, count}, {7, count}})
			w.server.TakenElsewhere("n2", body)
		}
		if full, wait := limiter.take(7, w.clock.Now()); full != c.want || wait != full-limiter.window+limiter.interval {
			t.Errorf("%s: full after %s, wait %s; want %s", name, full, wait, c.want)
		}
		w.clock.add(c.want - limiter.window + limiter.interval)
		if _, wait := limiter.take(7, w.clock.Now()); wait > 0 {
			t.Errorf("%s: still to wait %s", name, wait)
		}
		// A smaller cluster shortens nothing that is owed, and adds nothing.
		w.server.TakenElsewhere("n2", newShare([]allowance[evently.UserID]{{8, math.MaxUint32}}))
		before, _ := limiter.take(8, w.clock.Now())
		w.server.config.Membership = nil
		w.server.TakenElsewhere("n2", newShare([]allowance[evently.UserID]{{8, math.MaxUint32}}))
		if now, _ := limiter.take(8, w.clock.Now()); now != before {
			t.Errorf("%s: full after %s, before the cluster shrank %s", name, now, before)
		}
	}
}

func TestSharing_MessageIsTheSameAfterTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sent []allowance[evently.UserID]
		for range rapid.IntRange(1, 5).Draw(t, "users") {
			user, count := rapid.Uint64Min(1).Draw(t, "user"), rapid.Uint32Min(1).Draw(t, "count")
			sent = append(sent, allowance[evently.UserID]{evently.UserID(user), count})
		}
		got, err := parseShare(newShare(sent))
		if err != nil || !slices.Equal(got, sent) {
			t.Fatalf("got %v, %v; sent %v", got, err, sent)
		}
	})
}

// Nodes of another release read this form: change it only with the version.
func TestSharing_FormOfVersion1(t *testing.T) {
	want := []byte{1, 0x91, 0x9c, 0x8f, 0xc8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9}
	if got := newShare([]allowance[evently.UserID]{{0x0102030405060708, 9}}); !bytes.Equal(got, want) {
		t.Errorf("got %#v", got)
	}
}

func TestSharing_WhatIsNotUnderstoodIsIgnoredAndCounted(t *testing.T) {
	w := newSite(t, func(config *Config) { config.BookLimit = Limit{10, time.Minute} })
	good := newShare([]allowance[evently.UserID]{{7, 3}, {8, 4}})
	changed := func(i int, to byte) []byte {
		body := bytes.Clone(good)
		body[i] = to
		return body
	}
	summed := func(body []byte) []byte {
		binary.BigEndian.PutUint32(body[1:], crc32.Checksum(body[shareHeadBytes:], shareSum))
		return body
	}
	noUser, noCount := newShare([]allowance[evently.UserID]{{7, 3}, {0, 4}}), newShare([]allowance[evently.UserID]{{7, 0}, {8, 4}})
	garbled := [][]byte{
		nil, changed(0, 0), changed(4, good[4]^1), changed(12, 9), append(bytes.Clone(good), 0), []byte("\x01 garbage"), noUser, noCount,
		summed(make([]byte, shareHeadBytes)), summed(append(bytes.Clone(good), 0)), summed(bytes.Clone(good[:len(good)-1])),
		newShare(slices.Repeat([]allowance[evently.UserID]{{7, 1}}, shareUsersMax+1)),
	}
	for end := range good {
		garbled = append(garbled, good[:end])
	}
	later := [][]byte{changed(0, 2), changed(0, 255), {2}, append([]byte{3}, bytes.Repeat([]byte{7}, 2<<20)...)}
	for i, body := range append(garbled, later...) {
		w.server.TakenElsewhere("n2", body)
		if n := w.server.bookLimiter.buckets.len(); n != 0 {
			t.Fatalf("body %d: %d users", i, n)
		}
	}
	counted := func(result string) int {
		return int(testutil.ToFloat64(w.server.metrics.shares.WithLabelValues(result)))
	}
	if counted("garbled") != len(garbled) || counted("later_version") != len(later) || counted("heard") != 0 {
		t.Errorf("counted %d garbled and %d of later versions, want %d and %d",
			counted("garbled"), counted("later_version"), len(garbled), len(later))
	}
	w.server.TakenElsewhere("n2", good)
	if n := w.server.bookLimiter.buckets.len(); n != 2 || counted("heard") != 1 {
		t.Errorf("%d users after a good one", n)
	}
}

func FuzzParseShare(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(newShare([]allowance[evently.UserID]{{7, 3}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		allowed, err := parseShare(body)
		switch {
		case err == nil && !bytes.Equal(newShare(allowed), body):
			t.Errorf("%x is read as %v", body, allowed)
		case err != nil && !errors.Is(err, errShareGarbled) && !errors.Is(err, errShareVersion):
			t.Errorf("%x: %v", body, err)
		}
	})
}

// Where nothing is limited there is nothing to tell and nothing to hear.
func TestSharing_WithoutALimit(t *testing.T) {
	w := newSite(t, func(config *Config) { config.Share = func([]byte) { t.Error("told") } })
	w.server.TakenElsewhere("n2", newShare([]allowance[evently.UserID]{{7, 3}}))
	s := serve(t, w, w.server.Serve)
	w.do(t, "GET", "/livez", "")
	s.stop()
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}
