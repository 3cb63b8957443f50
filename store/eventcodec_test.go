package store

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/evently/evently"
)

var anyText = rapid.StringMatching(`[a-zA-Zäöü€𝄞"\\<>&\t\n %_]{0,20}`)

func anyTime(t *rapid.T, label string) time.Time {
	from := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	to := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli()
	return time.UnixMilli(rapid.Int64Range(from, to).Draw(t, label)).UTC()
}

var anyPricing = rapid.Custom(func(t *rapid.T) *evently.PricingRule {
	points := func(label string) []evently.PricePoint {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) evently.PricePoint {
			return evently.PricePoint{
				At: rapid.IntRange(0, evently.HoursBeforeMax).Draw(t, "at"), FactorBps: rapid.IntRange(0, evently.FactorBpsMax).Draw(t, "factor"),
			}
		}), -1, 3).Draw(t, label)
	}
	if rapid.Bool().Draw(t, "no rule") {
		return nil
	}
	rule := &evently.PricingRule{
		Step:     evently.PriceStep{EverySeats: rapid.IntRange(0, 9).Draw(t, "every"), AddMinor: rapid.Int64().Draw(t, "add")},
		FloorBps: rapid.IntRange(0, 9).Draw(t, "floor"), CeilingBps: rapid.IntRange(0, 9).Draw(t, "ceiling"),
		RoundMinor: rapid.Int64Min(0).Draw(t, "multiple"), Rounding: evently.Rounding(rapid.Uint8Max(2).Draw(t, "rounding")),
	}
	if curve := points("curve"); len(curve) > 0 {
		rule.Curve = curve
	}
	if hours := points("time"); len(hours) > 0 {
		rule.Time = hours
	}
	return rule
})

var anyEvent = rapid.Custom(func(t *rapid.T) *evently.Event {
	optional := func(label string) time.Time {
		if rapid.Bool().Draw(t, label+" set") {
			return anyTime(t, label)
		}
		return time.Time{}
	}
	return &evently.Event{
		ID: evently.EventID(rapid.Uint64Min(1).Draw(t, "id")), Organizer: evently.UserID(rapid.Uint64().Draw(t, "organizer")),
		Status:  evently.EventStatus(rapid.Uint8Max(2).Draw(t, "status")),
		Version: rapid.Uint64Max(1<<63-1).Draw(t, "version"), CreatedAt: anyTime(t, "created"), Pricing: anyPricing.Draw(t, "pricing"),
		EventDetails: evently.EventDetails{
			Name: anyText.Draw(t, "name"), Description: anyText.Draw(t, "description"), Category: anyText.Draw(t, "category"),
			Venue: anyText.Draw(t, "venue"), City: anyText.Draw(t, "city"), Timezone: "Europe/Berlin", Currency: "EUR",
			StartsAt: anyTime(t, "start"), EndsAt: anyTime(t, "end"), SalesStartAt: optional("sales start"), SalesEndAt: optional("sales end"),
			HoldTTL: time.Duration(rapid.Int64Range(1, 7*24*3600).Draw(t, "ttl")) * time.Second, MaxPerBooking: rapid.IntRange(1, 1000).Draw(t, "max"),
			MaxPerUser: rapid.IntRange(0, evently.MaxPerUserMax).Draw(t, "max of a user"),
			Tiers: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) evently.Tier {
				return evently.Tier{
					Name: anyText.Draw(t, "tier"), Capacity: rapid.IntRange(0, evently.CapacityMax/32).Draw(t, "capacity"),
					BasePriceMinor: rapid.Int64Range(0, evently.PriceMinorMax).Draw(t, "base"),
					PriceMinor:     rapid.Int64Range(0, evently.PriceMinorMax).Draw(t, "price"), Retired: rapid.Bool().Draw(t, "retired"),
				}
			}), 1, 4).Draw(t, "tiers"),
		},
	}
})

func TestEventCodec_KeepsEveryField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		event := anyEvent.Draw(t, "event")
		data, err := encodeEvent(event)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := decodeEvent(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(event, decoded); diff != "" {
			t.Fatalf("(-encoded +decoded):\n%s\n%s", diff, data)
		}
	})
}

// The row that SQL makes of the JSON, and the JSON that SQL makes of the row, are the same event: no column is forgotten
// and none loses precision.
func TestEventCodec_AgreesWithTheColumns(t *testing.T) {
	b := newBench(t, JournalConfig{})
	rows, err := b.pool.Query(t.Context(), "select column_name::text from information_schema.columns where table_name = 'events'")
	if err != nil {
		t.Fatal(err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := range reflect.TypeFor[eventJSON]().NumField() {
		key, _, _ := strings.Cut(reflect.TypeFor[eventJSON]().Field(i).Tag.Get("json"), ",")
		keys = append(keys, key)
	}
	slices.Sort(columns)
	slices.Sort(keys)
	if diff := cmp.Diff(columns, keys); diff != "" {
		t.Errorf("(-columns +keys):\n%s", diff)
	}
	var id evently.EventID
	rapid.Check(t, func(rt *rapid.T) {
		event := anyEvent.Draw(rt, "event")
		id++
		event.ID = id // another try of rapid is not a repeated request
		created, err := b.events.CreateEvent(t.Context(), event, 1, "")
		if err != nil {
			rt.Fatal(err)
		}
		read, err := b.events.State(t.Context(), event.ID)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(created, read.Event); diff != "" {
			rt.Fatalf("(-created +read):\n%s", diff)
		}
		if diff := cmp.Diff(event, read.Event); diff != "" {
			rt.Fatalf("(-given +read):\n%s", diff)
		}
	})
}

func TestItemsCodec_KeepsPricesAndOrder(t *testing.T) {
	items, err := evently.NewItems(
		evently.Item{Tier: 3, Quantity: 2, UnitPriceMinor: 700}, evently.Item{Tier: 0, Quantity: 1, UnitPriceMinor: evently.PriceMinorMax},
		evently.Item{Tier: 31, Quantity: evently.MaxPerBookingMax},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []evently.Items{items, evently.OneItem(evently.Item{Tier: 1, Quantity: 4, UnitPriceMinor: 5})} {
		more, err := encodeItems(&want)
		if err != nil {
			t.Fatal(err)
		}
		if (more == nil) != (want.Len() == 1) {
			t.Errorf("%d items: more is %q", want.Len(), more)
		}
		got, err := decodeItems(want.At(0), more)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(evently.Items{})); err != nil || diff != "" {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	}
}

func TestItemsCodec_RefusesDamage(t *testing.T) {
	good := evently.Item{Quantity: 1}
	for name, c := range map[string]struct {
		first evently.Item
		more  string
	}{
		"no seats":        {evently.Item{}, ""},
		"negative tier":   {evently.Item{Tier: -1, Quantity: 1}, ""},
		"tier too high":   {evently.Item{Tier: evently.TiersMax, Quantity: 1}, ""},
		"one tier twice":  {good, `[{"tier":0,"quantity":1,"unit_price":1}]`},
		"not a list":      {good, `{"tier":1}`},
		"no quantity":     {good, `[{"tier":1}]`},
		"not JSON at all": {good, `x`},
	} {
		if items, err := decodeItems(c.first, []byte(c.more)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, items)
		}
	}
}

func TestKeyUUID_IsReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := evently.Key{Hi: rapid.Uint64().Draw(t, "hi"), Lo: rapid.Uint64().Draw(t, "lo")}
		if got := uuidKey(keyUUID(key)); got != key {
			t.Fatalf("got %x, want %x", got, key)
		}
	})
	if keyUUID(evently.Key{}).Valid {
		t.Error("no key is not null")
	}
}
