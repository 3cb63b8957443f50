package evently

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata/ledger with what the ledger does now")

// The transcripts say what a ledger answers to commands, and which entries it writes. A difference is a change of what is
// promised to clients and of what journals hold: update them only when it is understood and wanted.
//
// A line that begins with > is a command, at a time counted from the opening of sales. The indented lines below it are its
// entries (#), its reply (=) or refusal (!), and the seat counts after it. The other lines are comments.
func TestLedger_Transcripts(t *testing.T) {
	files, err := filepath.Glob("testdata/ledger/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcribe(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Fatalf("%s (-want +got)\n%s", file, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")))
			}
		})
	}
}

func transcribe(t *testing.T, script string) string {
	var out strings.Builder
	var l *Ledger
	for line := range strings.Lines(script) {
		switch {
		case strings.HasPrefix(line, "  "):
			continue // the output of a run before
		case !strings.HasPrefix(line, "> "):
			out.WriteString(line)
			continue
		}
		out.WriteString(line)
		words := strings.Fields(line[2:])
		if words[0] == "event" {
			l = NewLedger(transcriptEvent(t, words[1:]), 1, epoch.Add(-time.Hour), 1)
			out.WriteString(transcribeCounts(l))
			continue
		}
		at, err := time.ParseDuration(words[0])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if words[1] == "crowd" {
			transcriptCrowd(t, l, words[2:], epoch.Add(at))
			out.WriteString(transcribeCounts(l))
			continue
		}
		d, err := do(l, transcriptCommand(t, l, words[1], words[2:]), epoch.Add(at))
		transcribeEntries(&out, d.Entries)
		switch {
		case err != nil:
			fmt.Fprintf(&out, "  ! %v%s\n", err, transcribeAvailable(err))
		case d.Event != nil:
			fmt.Fprintf(&out, "  = %s\n", transcribeEvent(d.Event))
		case d.Reservation.ID.Token != 0:
			fmt.Fprintf(&out, "  = %s%s\n", transcribeReservation(&d.Reservation), map[bool]string{true: " (replayed)"}[d.Replayed])
		}
		if d.Waiter != nil {
			fmt.Fprintf(&out, "  = %s%s\n", transcribeWaiter(d.Waiter), map[bool]string{true: " (replayed)"}[d.Replayed])
		}
		out.WriteString(transcribeCounts(l))
		if err := l.Check(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return out.String()
}

// transcribeEntries leaves the middle of many entries out.
func transcribeEntries(out *strings.Builder, entries []Entry) {
	const first, last = 5, 3
	for i := range entries {
		switch left := len(entries) - i; {
		case i < first || left <= last:
			fmt.Fprintf(out, "  # %s\n", transcribeEntry(&entries[i]))
		case i == first:
			fmt.Fprintf(out, "  # and %d more\n", left-last)
		}
	}
}

// transcriptEvent reads the capacities of the tiers and, if there is one, the limit of a user, for example "10 5 user=4".
func transcriptEvent(t *testing.T, capacities []string) *Event {
	limit, limited := strings.CutPrefix(capacities[len(capacities)-1], "user=")
	if limited {
		capacities = capacities[:len(capacities)-1]
	}
	event := newTestEvent(len(capacities), 0)
	if limited {
		event.MaxPerUser = transcriptNumber(t, limit)
	}
	for i, capacity := range capacities {
		event.Tiers[i].Capacity = transcriptNumber(t, capacity)
	}
	event.SalesEndAt = epoch.AddDate(0, 0, 30)
	event.StartsAt, event.EndsAt = epoch.AddDate(0, 0, 31), epoch.AddDate(0, 0, 32)
	return event
}

func transcriptNumber(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// transcriptCommand reads a command: "book r1 u1 k1 t1x2 t2x1", "confirm r1 u1", "release r1 u1", "cancel r1 u1", "expire",
// "revise v1 t1x20@1500 t2x0" (seats and, if it changes, the price of tiers), "publish", "cancel-event", "sweep",
// "sales 1h" and "limit 4" (revisions of when sales begin and of a user's limit), "join w1 u1 k1 hold t1x2", "leave u1", "prioritize w1 5", "pricing v1" and the parts of a rule (see transcriptRule), "reprice",
// "reprice dry".
func transcriptCommand(t *testing.T, l *Ledger, name string, words []string) Command {
	number := func(i int) uint64 { return uint64(transcriptNumber(t, words[i][1:])) }
	switch name {
	case "book":
		return &Book{Token: Token(number(0)), User: UserID(number(1)), Key: Key{0, number(2)}, Items: transcriptItems(t, words[3:])}
	case "confirm":
		return &Confirm{Token: Token(number(0)), User: UserID(number(1))}
	case "release":
		return &Release{Token: Token(number(0)), User: UserID(number(1))}
	case "cancel":
		return &Cancel{Token: Token(number(0)), User: UserID(number(1))}
	case "expire":
		return &Expire{}
	case "revise":
		details := l.Event().EventDetails
		details.Tiers = slices.Clone(details.Tiers)
		for _, word := range words[1:] {
			i, tier, priced := transcriptTier(t, word)
			if i == len(details.Tiers) {
				details.Tiers = append(details.Tiers, tier)
			}
			details.Tiers[i].Capacity, details.Tiers[i].Retired = tier.Capacity, tier.Capacity == 0
			if priced {
				details.Tiers[i].BasePriceMinor, details.Tiers[i].PriceMinor = tier.PriceMinor, tier.PriceMinor
			}
		}
		return &Revise{Version: number(0), Details: details}
	case "publish":
		return &Publish{}
	case "cancel-event":
		return &CancelEvent{}
	case "sweep":
		return &Sweep{}
	case "sales", "limit":
		details := l.Event().EventDetails
		if name == "limit" {
			details.MaxPerUser = transcriptNumber(t, words[0])
		} else {
			from, err := time.ParseDuration(words[0])
			if err != nil {
				t.Fatal(err)
			}
			details.SalesStartAt = epoch.Add(from)
		}
		return &Revise{Version: l.Event().Version, Details: details}
	case "join":
		onRelease, err := ParseOnRelease(words[3])
		if err != nil {
			t.Fatal(err)
		}
		return &JoinWaitlist{
			Token: Token(number(0)), User: UserID(number(1)), Key: Key{0, number(2)}, OnRelease: onRelease, Items: transcriptItems(t, words[4:]),
		}
	case "leave":
		return &LeaveWaitlist{User: UserID(number(0))}
	case "prioritize":
		return &Prioritize{Token: Token(number(0)), Priority: transcriptNumber(t, words[1])}
	case "pricing":
		return &SetPricing{Version: number(0), Rule: transcriptRule(t, words[1:])}
	case "reprice":
		return &Reprice{DryRun: len(words) > 0}
	}
	t.Fatalf("unknown command %q", name)
	return nil
}

func transcriptItems(t *testing.T, words []string) Items {
	var items []Item
	for _, word := range words {
		tier, item, _ := transcriptTier(t, word)
		items = append(items, Item{Tier: tier, Quantity: item.Capacity})
	}
	return mustItems(items...)
}

// transcriptCrowd reads "600 book t1x1": so many join, w1001 of u1001 with k1001 and so on.
func transcriptCrowd(t *testing.T, l *Ledger, words []string, at time.Time) {
	for n := range transcriptNumber(t, words[0]) {
		name := strconv.Itoa(1001 + n)
		mustDo(t, l, transcriptCommand(t, l, "join", append([]string{"w" + name, "u" + name, "k" + name}, words[1:]...)), at)
	}
}

// transcriptRule reads the parts of a pricing rule: "curve=0:10000,8000:15000", "time=24:12000", "step=10:100", "floor=9000",
// "ceiling=20000", "round=50", "rounding=up". Without a part there is no rule.
func transcriptRule(t *testing.T, words []string) *PricingRule {
	if len(words) == 0 {
		return nil
	}
	rule := &PricingRule{}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "curve":
			rule.Curve = transcriptPoints(t, value)
		case "time":
			rule.Time = transcriptPoints(t, value)
		case "step":
			point := transcriptPoints(t, value)[0]
			rule.Step = PriceStep{EverySeats: point.At, AddMinor: int64(point.FactorBps)}
		case "floor":
			rule.FloorBps = transcriptNumber(t, value)
		case "ceiling":
			rule.CeilingBps = transcriptNumber(t, value)
		case "round":
			rule.RoundMinor = int64(transcriptNumber(t, value))
		case "rounding":
			rounding, err := ParseRounding(value)
			if err != nil {
				t.Fatal(err)
			}
			rule.Rounding = rounding
		default:
			t.Fatalf("unknown part of a rule: %s", word)
		}
	}
	if err := rule.Validate(); err != nil {
		t.Fatal(err)
	}
	return rule
}

func transcriptPoints(t *testing.T, s string) (points []PricePoint) {
	for point := range strings.SplitSeq(s, ",") {
		at, factor, _ := strings.Cut(point, ":")
		points = append(points, PricePoint{At: transcriptNumber(t, at), FactorBps: transcriptNumber(t, factor)})
	}
	return points
}

// transcriptTier reads "t2x5" or "t2x5@1500": 5 seats of the second tier, at a price.
func transcriptTier(t *testing.T, word string) (index int, tier Tier, priced bool) {
	word, price, priced := strings.Cut(word, "@")
	id, seats, _ := strings.Cut(word, "x")
	index, err := ParseTierID(id)
	if err != nil {
		t.Fatal(err)
	}
	tier = Tier{Name: id, Capacity: transcriptNumber(t, seats)}
	if priced {
		tier.PriceMinor = int64(transcriptNumber(t, price))
		tier.BasePriceMinor = tier.PriceMinor
	}
	return index, tier, priced
}

func transcribeEntry(e *Entry) string {
	s := fmt.Sprintf("%d %s %s", e.Seq, transcribeTime(e.At), e.Kind)
	switch e.Kind {
	case HeldEntry:
		origin := fmt.Sprintf("key k%d", e.Key.Lo)
		if e.Waiter {
			origin = "who waited"
		}
		s += fmt.Sprintf(" r%d of u%d, %s, until %s: %s", e.Token, e.User, origin, transcribeTime(e.ExpiresAt), transcribeItems(e.Items))
	case WaitlistedEntry:
		s += fmt.Sprintf(" w%d of u%d, key k%d, at position %d: %s, %s", e.Token, e.User, e.Key.Lo, e.Position, transcribeSeats(e.Items), e.OnRelease)
	case WaiterPrioritizedEntry:
		s += fmt.Sprintf(" w%d to %d", e.Token, e.Priority)
	case WaiterLeftEntry, WaiterClosedEntry:
		s += fmt.Sprintf(" w%d", e.Token)
	case ConfirmedEntry, CancelledEntry, ExpiredEntry:
		s += fmt.Sprintf(" r%d", e.Token)
	default:
		s += " " + transcribeEvent(e.Event)
	}
	return s
}

func transcribeEvent(event *Event) string {
	s := fmt.Sprintf("v%d %s", event.Version, event.Status)
	for i, tier := range event.Tiers {
		s += fmt.Sprintf(", %sx%d at %d", TierID(i), tier.Capacity, tier.PriceMinor)
	}
	return s
}

func transcribeReservation(r *Reservation) string {
	s := fmt.Sprintf("r%d of u%d %s, entry %d, held %s until %s", r.ID.Token, r.User, r.Status, r.Seq, transcribeTime(r.CreatedAt),
		transcribeTime(r.ExpiresAt))
	if !r.ConfirmedAt.IsZero() {
		s += ", confirmed " + transcribeTime(r.ConfirmedAt)
	}
	if !r.EndedAt.IsZero() {
		s += ", ended " + transcribeTime(r.EndedAt)
	}
	return s + fmt.Sprintf(": %s, in all %d %s", transcribeItems(r.Items), r.Items.TotalMinor(), r.Currency)
}

func transcribeWaiter(w *Waiter) string {
	s := fmt.Sprintf("w%d of u%d %s, entry %d, joined %s at position %d", w.ID.Token, w.User, w.Status, w.Seq, transcribeTime(w.JoinedAt),
		w.Position)
	if w.Priority != 0 {
		s += fmt.Sprintf(", priority %d", w.Priority)
	}
	if !w.EndedAt.IsZero() {
		s += ", ended " + transcribeTime(w.EndedAt)
	}
	return s + fmt.Sprintf(": %s, %s", transcribeSeats(w.Items), w.OnRelease)
}

func transcribeSeats(items Items) string {
	var parts []string
	for item := range items.All() {
		parts = append(parts, fmt.Sprintf("%sx%d", TierID(item.Tier), item.Quantity))
	}
	return strings.Join(parts, ", ")
}

func transcribeItems(items Items) string {
	var parts []string
	for item := range items.All() {
		parts = append(parts, fmt.Sprintf("%sx%d at %d", TierID(item.Tier), item.Quantity, item.UnitPriceMinor))
	}
	return strings.Join(parts, ", ")
}

func transcribeAvailable(err error) string {
	if refusal := (*Error)(nil); errors.As(err, &refusal) && refusal.Code == CodeSoldOut {
		return fmt.Sprintf(" (%d available)", refusal.Available)
	}
	return ""
}

func transcribeCounts(l *Ledger) string {
	var a Availability
	l.Availability(&a)
	var tiers []string
	for i, tier := range a.Tiers {
		tiers = append(tiers, fmt.Sprintf("%s %d free, %d held, %d booked", TierID(i), tier.Available(), tier.Held, tier.Booked))
	}
	s := "    " + strings.Join(tiers, "; ")
	if a.Waiting > 0 {
		s += fmt.Sprintf("; %d waiting", a.Waiting)
	}
	if due := l.NextDue(); !due.IsZero() {
		s += "; due " + transcribeTime(due)
	}
	return s + "\n"
}

func transcribeTime(at time.Time) string { return at.Sub(epoch).String() }
