package evently

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fields returns the names of the fields that an error finds wrong, or nil for no error. Any other error fails the test.
func fields(t *testing.T, err error) (names []string) {
	t.Helper()
	if err == nil {
		return nil
	}
	refusal := (*Error)(nil)
	if !errors.As(err, &refusal) || refusal.Code != CodeInvalidRequest || len(refusal.Fields) == 0 {
		t.Fatalf("got %v, want %s with fields", err, CodeInvalidRequest)
	}
	for _, field := range refusal.Fields {
		names = append(names, field.Field)
	}
	return names
}

func TestNewItems_NamesEveryFieldThatIsWrong(t *testing.T) {
	all := make([]Item, TiersMax+1)
	for i := range all {
		all[i] = seats(i, 1)
	}
	for name, test := range map[string]struct {
		items []Item
		want  []string
	}{
		"one":            {[]Item{seats(0, 1)}, nil},
		"most":           {all[:TiersMax], nil},
		"most seats":     {[]Item{seats(0, MaxPerBookingMax)}, nil},
		"none":           {nil, []string{"items"}},
		"too many":       {all, []string{"items"}},
		"no such tier":   {[]Item{seats(-1, 1), seats(TiersMax, 1)}, []string{"items[0].tier_id", "items[1].tier_id"}},
		"a tier twice":   {[]Item{seats(1, 1), seats(0, 1), seats(1, 2)}, []string{"items[2].tier_id"}},
		"no seat":        {[]Item{seats(0, 1), seats(1, 0)}, []string{"items[1].quantity"}},
		"less than none": {[]Item{seats(0, -1)}, []string{"items[0].quantity"}},
		"too many seats": {[]Item{seats(0, MaxPerBookingMax+1)}, []string{"items[0].quantity"}},
		"two in one":     {[]Item{seats(99, 0)}, []string{"items[0].tier_id", "items[0].quantity"}},
	} {
		t.Run(name, func(t *testing.T) {
			items, err := NewItems(test.items...)
			if got := fields(t, err); !slices.Equal(got, test.want) {
				t.Fatalf("got %v, want %v", got, test.want)
			}
			if want := len(test.items); err == nil && items.Len() != want || err != nil && items.Len() != 0 {
				t.Fatalf("got %d items, want %d or, with an error, none", items.Len(), want)
			}
		})
	}
}

func TestItems_AreOrderedByTierAndAddedUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tiers := rapid.SliceOfNDistinct(rapid.IntRange(0, TiersMax-1), 1, TiersMax, rapid.ID).Draw(t, "tiers")
		var given []Item
		quantity, total := 0, int64(0)
		for _, tier := range tiers {
			item := Item{
				Tier: tier, Quantity: rapid.IntRange(1, MaxPerBookingMax).Draw(t, "quantity"),
				UnitPriceMinor: rapid.Int64Range(0, PriceMinorMax).Draw(t, "price"),
			}
			quantity += item.Quantity
			total += int64(item.Quantity) * item.UnitPriceMinor
			given = append(given, item)
		}
		before := slices.Clone(given)
		items := mustItems(given...)
		if !slices.Equal(given, before) {
			t.Fatal("the caller's items have changed")
		}
		slices.SortFunc(before, func(a, b Item) int { return a.Tier - b.Tier })
		if got := slices.Collect(items.All()); !slices.Equal(got, before) {
			t.Fatalf("got %v, want %v", got, before)
		}
		if items.Quantity() != quantity || items.TotalMinor() != total || total < 0 {
			t.Fatalf("got %d seats for %d, want %d for %d", items.Quantity(), items.TotalMinor(), quantity, total)
		}
		for item := range items.All() {
			if item != items.At(0) {
				t.Fatalf("got %v first, want %v", item, items.At(0))
			}
			break
		}
	})
}

func TestItems_SameSeatsIgnoresPricesAndOrder(t *testing.T) {
	items := mustItems(Item{0, 2, 10}, Item{1, 1, 20})
	for name, test := range map[string]struct {
		other Items
		want  bool
	}{
		"equal":           {mustItems(Item{0, 2, 10}, Item{1, 1, 20}), true},
		"another order":   {mustItems(Item{1, 1, 20}, Item{0, 2, 10}), true},
		"other prices":    {mustItems(Item{0, 2, 0}, Item{1, 1, 1}), true},
		"less seats":      {mustItems(seats(0, 1), seats(1, 1)), false},
		"more seats":      {mustItems(seats(0, 2), seats(1, 2)), false},
		"another tier":    {mustItems(seats(0, 2), seats(2, 1)), false},
		"one tier less":   {OneItem(seats(0, 2)), false},
		"one tier more":   {mustItems(seats(0, 2), seats(1, 1), seats(2, 1)), false},
		"nothing":         {Items{}, false},
		"exchanged seats": {mustItems(seats(0, 1), seats(1, 2)), false},
	} {
		if got := items.SameSeats(&test.other); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
		if got := test.other.SameSeats(&items); got != test.want {
			t.Errorf("%s, asked the other way: got %v, want %v", name, got, test.want)
		}
	}
	one, alone := OneItem(seats(3, 2)), OneItem(seats(OnlyTier, 2))
	if !one.SameSeats(&alone) || items.SameSeats(&alone) {
		t.Error("a bare quantity is that of the one item, whatever its tier, and no other")
	}
	if none := (Items{}); none.Len() != 0 || none.Quantity() != 0 || none.TotalMinor() != 0 || !none.SameSeats(&Items{}) {
		t.Error("no items are something")
	}
}

func TestItems_OfOneTierAllocateNothing(t *testing.T) {
	var items Items
	if allocs := testing.AllocsPerRun(100, func() { items = OneItem(seats(0, 1)) }); allocs > 0 || items.Len() != 1 {
		t.Fatalf("got %v allocations and %d items", allocs, items.Len())
	}
}

func TestReservation_CancelledAt(t *testing.T) {
	for status, want := range map[ReservationStatus]time.Time{Held: {}, Confirmed: {}, Expired: {}, Cancelled: epoch} {
		if got := (&Reservation{Status: status, EndedAt: epoch}).CancelledAt(); got != want {
			t.Errorf("%s: got %v, want %v", status, got, want)
		}
	}
}

// The texts go into storage and answers, the numbers into storage: neither may ever change.
func TestEnumerations_TextsAndNumbers(t *testing.T) {
	got := map[string][]string{}
	for i := range uint8(16) {
		got["reservation"] = append(got["reservation"], ReservationStatus(i).String())
		got["event"] = append(got["event"], EventStatus(i).String())
		got["entry"] = append(got["entry"], EntryKind(i).String())
		got["role"] = append(got["role"], Role(i).String())
		got["waiter"] = append(got["waiter"], WaiterStatus(i).String())
		got["on release"] = append(got["on release"], OnRelease(i).String())
		got["rounding"] = append(got["rounding"], Rounding(i).String())
		for _, err := range []error{
			roundTrip(ReservationStatus(i), ParseReservationStatus), roundTrip(EventStatus(i), ParseEventStatus), roundTrip(Role(i), ParseRole),
			roundTrip(OnRelease(i), ParseOnRelease), roundTrip(Rounding(i), ParseRounding),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	want := map[string][]string{
		"reservation": {"held", "confirmed", "cancelled", "expired"},
		"event":       {"draft", "published", "cancelled"},
		"entry": {
			"EntryKind(0)", "event_created", "event_revised", "event_published", "event_cancelled", "held", "confirmed", "cancelled",
			"expired", "event_deleted", "waitlisted", "waiter_prioritized", "waiter_left", "waiter_closed", "event_pricing_set", "event_repriced",
		},
		"role":       {"user", "organizer", "admin"},
		"waiter":     {"waiting", "served", "left", "closed"},
		"on release": {"book", "hold"},
		"rounding":   {"nearest", "up", "down"},
	}
	for name, texts := range want {
		if !reflect.DeepEqual(got[name][:len(texts)], texts) {
			t.Errorf("%s: got %v, want %v", name, got[name], texts)
		}
	}
	for i, text := range []string{got["reservation"][9], got["event"][9], got["role"][9], EntryKind(200).String()} {
		if want := []string{"ReservationStatus(9)", "EventStatus(9)", "Role(9)", "EntryKind(200)"}[i]; text != want {
			t.Errorf("got %s, want %s", text, want)
		}
	}
}

// roundTrip checks that the text of a value parses as the value, and the text of no value parses.
func roundTrip[T interface {
	~uint8
	String() string
}](value T, parse func(string) (T, error)) error {
	text := value.String()
	parsed, err := parse(text)
	named := text[len(text)-1] != ')'
	if named && (err != nil || parsed != value) || !named && err == nil {
		return errors.New(text + " parses as " + parsed.String())
	}
	return nil
}
