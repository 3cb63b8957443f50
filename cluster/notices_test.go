package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cluster"
)

const (
	topic      = "test"
	bodyMax    = 1 << 20
	noticesMax = 256
)

// talk sets the functions of the test's topics.
func (h *host) talk() {
	h.OnNotice(topic, func(from string, body []byte) {
		if string(body) == "panic0" {
			panic("asked to")
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.heard = append(h.heard, from+": "+string(body))
	})
	h.OnQuery("echo", func(_ context.Context, body []byte) ([]byte, error) { return append([]byte("echo "), body...), nil })
	h.OnQuery("fail", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("out of tickets") })
	h.OnQuery("panic", func(context.Context, []byte) ([]byte, error) { panic("asked to") })
	h.OnQuery("long", func(context.Context, []byte) ([]byte, error) { return make([]byte, bodyMax+1), nil })
	h.OnQuery("largest", func(context.Context, []byte) ([]byte, error) { return bytes.Repeat([]byte("x"), bodyMax), nil })
	h.OnQuery("wait", func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		h.count(h.left, "query")
		return nil, ctx.Err()
	})
}

func (h *host) noticed() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.heard...)
}

// heard waits until m has n notices of from, and checks that they are the numbers behind text in their order.
func heard(t *testing.T, m, from *process, text string, n int) {
	t.Helper()
	var got []string
	eventually(t, func() string {
		got = nil
		for _, notice := range m.do(request{Do: "noticed"}).Texts {
			if strings.HasPrefix(notice, from.id+": "+text) {
				got = append(got, notice)
			}
		}
		if len(got) < n {
			return fmt.Sprintf("%d of %d notices", len(got), n)
		}
		return ""
	})
	for i, notice := range got {
		if want := fmt.Sprint(from.id, ": ", text, i); notice != want {
			t.Fatalf("notice %d of %d at %s is %q, want %q", i, len(got), m.id, notice, want)
		}
	}
}

func TestNotify_ReachesEveryOtherMemberInOrder(t *testing.T) {
	t.Parallel()
	members := three(t)
	const n = 100
	members[0].do(request{Do: "notify", Identity: "of a later version", Arg: "x", N: 1})
	members[0].do(request{Do: "notify", Identity: topic, Arg: "panic", N: 1})
	members[0].do(request{Do: "notify", Identity: topic, Arg: "a", N: n})
	members[1].do(request{Do: "notify", Identity: topic, Arg: "b", N: n})
	for _, m := range members[1:] {
		heard(t, m, members[0], "a", n)
		if got := m.metric("evently_cluster_notices_received_total unknown"); got != 1 {
			t.Errorf("%d notices of unknown topics, want 1", got)
		}
	}
	heard(t, members[2], members[1], "b", n)
	for _, notice := range members[0].do(request{Do: "noticed"}).Texts {
		if strings.HasPrefix(notice, members[0].id) {
			t.Errorf("the sender heard itself: %s", notice)
		}
	}
	if got, want := members[0].metric("evently_cluster_notices_sent_total arrived"), 2*(n+2); got != want {
		t.Errorf("%d notices arrived, want %d", got, want)
	}
}

func TestNotify_TooLongIsDropped(t *testing.T) {
	h := start(t)
	h.Notify(topic, make([]byte, bodyMax+1))
	if n, err := h.metric("evently_cluster_notices_sent_total dropped"); n != 1 || err != nil {
		t.Errorf("%v notices dropped, %v, want 1", n, err)
	}
}

// It is not parallel: it measures time.
func TestNotify_DeadMemberHoldsUpNobody(t *testing.T) {
	members := three(t)
	const n = 200
	members[2].kill()
	if ms := members[0].do(request{Do: "notify", Identity: topic, Arg: "a", N: n}).N; ms > 500 {
		t.Errorf("%d notices took %d ms, want no wait", n, ms)
	}
	heard(t, members[1], members[0], "a", n)
	see(t, members[:2]...)
	// Nothing waits any more for the one that is gone.
	eventually(t, func() string {
		lost := members[0].metric("evently_cluster_notices_sent_total lost") + members[0].metric("evently_cluster_notices_sent_total dropped")
		if lost != n {
			return fmt.Sprintf("%d notices for the dead member counted, want %d", lost, n)
		}
		return ""
	})
}

// It is not parallel: it measures time.
func TestNotify_MemberThatHangsCostsBoundedMemoryAndGetsTheLatest(t *testing.T) {
	members := form(t, cluster.ProfileWAN, 3) // nobody is taken for dead here
	hung := members[2]
	if err := hung.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const n = 20 * noticesMax
	if ms := members[0].do(request{Do: "notify", Identity: topic, Arg: "a", N: n}).N; ms > 2000 {
		t.Errorf("%d notices took %d ms, want no wait", n, ms)
	}
	if dropped := members[0].metric("evently_cluster_notices_sent_total dropped"); dropped < n-noticesMax-2 {
		t.Errorf("%d notices dropped, want all but the latest %d", dropped, noticesMax)
	}
	if err := hung.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	last := fmt.Sprint(members[0].id, ": a", n-1)
	eventually(t, func() string {
		texts := hung.do(request{Do: "noticed"}).Texts
		if len(texts) == 0 || texts[len(texts)-1] != last {
			return fmt.Sprintf("%d notices, the last is not %q", len(texts), last)
		}
		return ""
	})
}

// It is not parallel: it measures time.
func TestQuery_IsAnsweredOrFailsWithTheReason(t *testing.T) {
	members := three(t)
	a, b := members[0], members[1]
	query := func(m *process, name, body string) request {
		return request{Do: "query", Identity: name, Arg: body, PID: [2]string{m.id}}
	}
	for _, m := range members { // itself, too
		if got := a.do(query(m, "echo", "x")).Text; got != "echo x" {
			t.Errorf("%s answered %q", m.id, got)
		}
		a.fail(query(m, "of a later version", ""), cluster.ErrUnknownTopic)
		a.fail(query(m, "fail", ""), errors.New("out of tickets"))
		a.fail(query(m, "panic", ""), errors.New("it failed"))
		a.fail(query(m, "long", ""), cluster.ErrTooLong)
		long := query(m, "echo", "x")
		long.N = bodyMax + 1
		a.fail(long, cluster.ErrTooLong)
		if got := len(a.do(query(m, "largest", "")).Text); got != bodyMax {
			t.Errorf("%s answered %d bytes, want %d", m.id, got, bodyMax)
		}
	}
	a.fail(request{Do: "query", Identity: "echo", PID: [2]string{"nobody"}}, cluster.ErrUnknownMember)

	wait := query(b, "wait", "")
	wait.Timeout = 200 * time.Millisecond
	a.fail(wait, context.DeadlineExceeded)
	eventually(t, func() string { // the answering function hears of it
		if b.do(request{Do: "drained"}).N != 1 {
			return "the query still waits"
		}
		return ""
	})

	b.kill()
	late := query(b, "echo", "")
	late.Timeout = 500 * time.Millisecond
	got := a.try(late)
	if got.Err == "" || got.N > 1500 {
		t.Errorf("query to a dead member: %q, %q after %d ms", got.Text, got.Err, got.N)
	}
	eventually(t, func() string { // at once, when it is no member any more
		if got := a.try(query(b, "echo", "")); !strings.Contains(got.Err, cluster.ErrUnknownMember.Error()) {
			return fmt.Sprintf("query to a member that is gone: %q", got.Err)
		}
		return ""
	})
	if got := a.do(query(members[2], "echo", "x")).Text; got != "echo x" {
		t.Errorf("answered %q", got)
	}
}

func TestQuery_AllOfTheLargestAtTheSameTimeFitTheConnection(t *testing.T) {
	t.Parallel()
	members := three(t)
	done := make(chan string)
	for i, m := range members {
		go func() {
			next := members[(i+1)%len(members)]
			done <- m.try(request{Do: "queries", Identity: "largest", PID: [2]string{next.id}, N: 8}).Err
		}()
	}
	for range members {
		if err := <-done; err != "" {
			t.Error(err)
		}
	}
}
