package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// counts is what both an event's availability and its replay tell.
type counts struct {
	EventID                                       string `json:"event_id"`
	Seq                                           uint64
	Capacity, Available, Held, Booked, Waitlisted int
	Tiers                                         []struct {
		ID                                string
		Capacity, Available, Held, Booked int
	}
}

// priced is what both an event and its replay tell, in different places.
type priced struct {
	Status  string
	Version uint64
	Name    string
	Tiers   []struct {
		ID    string
		Price int64 `json:"price_minor"`
	}
}

// replayed is what `evently replay --json` prints.
type replayed struct {
	counts
	Status       string
	Version      uint64
	Epoch        uint64
	LastEntry    string `json:"last_entry"`
	Live         int    `json:"live_reservations"`
	Details      struct{ Name string }
	Reservations []struct{ ID, Status, Seats string }
	Entries      []struct {
		Seq       uint64
		Kind      string
		RequestID string `json:"request_id"`
		SubjectID string `json:"subject_id"`
		UserID    string `json:"user_id"`
		Seats     string
	}
}

func replay(t *testing.T, dir string, args ...string) (view replayed, text []byte) {
	t.Helper()
	tool := proctest.Launch(t, dir, append([]string{"replay", "--json"}, args...)...)
	if exit := tool.Exit(t, proctest.UpMax); exit != exitOK {
		t.Fatalf("%v: exit %d: %s", args, exit, tool.Output())
	}
	text = []byte(tool.Output())
	if err := json.Unmarshal(text, &view); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return view, text
}

// An event is replayed to moments of its past, by time and by number, and is as it was seen then.
func TestReplay_ShowsWhatWasSeenThen(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--rate-limit-book=off")
	admin, ann, ben := n.Client(t, n.Login(t)), n.Client(t, ""), n.Client(t, "")
	tokens := n.Users(t, 2)
	ann.Token, ben.Token = tokens[0], tokens[1]
	path := n.CreateEvent(t, 4, time.Hour)
	id := strings.TrimPrefix(path, "/events/")

	type moment struct {
		at     time.Time
		counts counts
		priced priced
		what   string
	}
	var moments []moment
	look := func(what string) {
		t.Helper()
		m := moment{what: what}
		// The journal's times are of whole milliseconds.
		<-time.After(5 * time.Millisecond)
		if err := json.Unmarshal(ann.Must(t, 200, "GET", path+"/availability", "", "").Body, &m.counts); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(ann.Must(t, 200, "GET", path, "", "").Body, &m.priced); err != nil {
			t.Fatal(err)
		}
		m.at = time.Now()
		<-time.After(5 * time.Millisecond)
		moments = append(moments, m)
	}
	look("event_created")
	first := ann.Must(t, 201, "POST", path+"/book", "one", `{"quantity":2}`).Seats(t).ID
	look("held")
	ann.Must(t, 200, "POST", "/reservations/"+first+"/confirm", "", "", "X-Request-Id", "the-confirmation")
	look("confirmed")
	admin.Must(t, 200, "PUT", "/admin"+path+"/pricing", "", `{"step":{"every_seats":1,"add_minor":50}}`, "If-Match", `"1"`)
	look("event_pricing_set")
	second := ben.Must(t, 201, "POST", path+"/book", "one", `{"quantity":2}`).Seats(t).ID
	look("held")
	admin.Must(t, 200, "POST", "/admin/pricing/run", "run", "{}")
	look("event_repriced")
	ann.Must(t, 201, "POST", path+"/waitlist", "wait", `{"quantity":1,"on_release":"hold"}`)
	look("waitlisted")
	ben.Must(t, 204, "DELETE", "/reservations/"+second, "", "")
	look("held") // for who waits
	admin.Must(t, 200, "PUT", "/admin"+path, "", strings.Replace(proctest.EventBody("Finale", 9, time.Hour), `"currency"`, `"city":"Linz","currency"`, 1),
		"If-Match", fmt.Sprintf(`"%d"`, moments[len(moments)-1].priced.Version))
	look("event_revised")
	admin.Must(t, 200, "POST", "/admin"+path+"/cancel", "", "")
	look("cancelled")

	for _, m := range moments {
		for _, by := range []string{"--at=" + m.at.Format(time.RFC3339Nano), fmt.Sprint("--seq=", m.counts.Seq)} {
			got, text := replay(t, dir, id, by, "--reservations")
			if !reflect.DeepEqual(got.counts, m.counts) {
				t.Errorf("%s: the counts are %+v, and were %+v", by, got.counts, m.counts)
			}
			var prices priced
			if err := json.Unmarshal(text, &prices); err != nil {
				t.Fatal(err)
			}
			if prices.Name = got.Details.Name; !reflect.DeepEqual(prices, m.priced) {
				t.Errorf("%s: the event is %+v, and was %+v", by, prices, m.priced)
			}
			if got.LastEntry != m.what || got.Epoch == 0 && got.Seq > 1 || len(got.Reservations) != got.Live {
				t.Errorf("%s: %+v, want one after %s, with all its live reservations", by, got, m.what)
			}
		}
	}
	view, _ := replay(t, dir, id, "--entries=100")
	if last := moments[len(moments)-1].counts.Seq; len(view.Entries) != int(last) || view.Seq != last {
		t.Errorf("%d entries up to %d, want all %d", len(view.Entries), view.Seq, last)
	}
	if e := view.Entries[2]; e.Seq != 3 || e.Kind != "confirmed" || e.RequestID != "the-confirmation" || e.SubjectID != first || e.Seats != "t1 x 2" || e.UserID == "" {
		t.Errorf("entry 3 is %+v", e)
	}
	if few, _ := replay(t, dir, id, "--seq=5", "--entries=2"); len(few.Entries) != 2 || few.Entries[0].Seq != 4 || few.Entries[1].Seq != 5 {
		t.Errorf("the last two entries are %+v", few.Entries)
	}

	readable := proctest.Launch(t, dir, "replay", id, "--reservations", "--entries=3", "--seq=4")
	if exit := readable.Exit(t, proctest.UpMax); exit != exitOK {
		t.Fatalf("exit %d: %s", exit, readable.Output())
	}
	for _, want := range []string{id, "Final", "entry 4 (event_pricing_set)", "+01:00", "4: 2 available, 0 held, 2 booked, by 1 reservations; 0 wait", first, "confirmed"} {
		if !strings.Contains(readable.Output(), want) && !strings.Contains(readable.Output(), strings.Replace(want, "+01", "+02", 1)) {
			t.Errorf("%q is not in\n%s", want, readable.Output())
		}
	}
	for _, c := range []struct {
		args []string
		exit int
		says string
	}{
		{[]string{}, exitUsage, "accepts 1 arg"},
		{[]string{"nonsense"}, exitUsage, "nonsense"},
		{[]string{id, "--at=yesterday"}, exitUsage, "yesterday"},
		{[]string{id, "--at=2027-05-01T18:00:00"}, exitUsage, "no time such as"},
		{[]string{id, "--seq=0"}, exitUsage, "from 1 on"},
		{[]string{id, "--seq=-1"}, exitUsage, "seq"},
		{[]string{id, "--seq=1", "--at=2027-05-01T18:00:00Z"}, exitUsage, "do not go together"},
		{[]string{id, "--entries=-1"}, exitUsage, "--entries"},
		{[]string{id, "--seq=99"}, exitFailed, "no such entry yet"},
		{[]string{id, "--at=2020-05-01T18:00:00Z"}, exitFailed, "not there yet"},
		{[]string{"evt_0000000000001"}, exitFailed, "event_not_found"},
	} {
		tool := proctest.Launch(t, dir, append([]string{"replay"}, c.args...)...)
		if exit := tool.Exit(t, proctest.UpMax); exit != c.exit || !strings.Contains(tool.Output(), c.says) {
			t.Errorf("%v: exit %d, want %d with %q: %s", c.args, exit, c.exit, c.says, tool.Output())
		}
	}
}
