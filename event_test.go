package evently

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEventDetails_ValidateNamesEveryFieldThatIsWrong(t *testing.T) {
	year := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	tiers := func(tiers ...Tier) func(*EventDetails) { return func(d *EventDetails) { d.Tiers = tiers } }
	many := func(n int) []Tier { return newTestEvent(n, 1).Tiers }
	for name, test := range map[string]struct {
		change func(d *EventDetails)
		want   []string
	}{
		"sound": {func(*EventDetails) {}, nil},
		"all at their limits": {func(d *EventDetails) {
			d.Name, d.Description, d.City = strings.Repeat("ü", 200), strings.Repeat("ü", 10_000), strings.Repeat("ü", 200)
			d.HoldTTL, d.MaxPerBooking, d.MaxPerUser, d.Tiers = HoldTTLMax, MaxPerBookingMax, MaxPerUserMax, many(TiersMax)
			d.Tiers[0].Name, d.Tiers[0].Capacity = strings.Repeat("ü", 200), CapacityMax-TiersMax+1
			d.Tiers[0].BasePriceMinor, d.Tiers[0].PriceMinor = PriceMinorMax, PriceMinorMax
			d.SalesStartAt, d.StartsAt, d.EndsAt, d.Timezone = time.Time{}, year(2000), year(9999), "UTC"
		}, nil},
		"all at their least": {func(d *EventDetails) {
			d.Name, d.HoldTTL, d.MaxPerBooking = "a", HoldTTLMin, 1
			d.Tiers = []Tier{{Name: "a", Capacity: 1}, {Name: "b"}}
		}, nil},
		"no name":               {func(d *EventDetails) { d.Name = "" }, []string{"name"}},
		"a blank name":          {func(d *EventDetails) { d.Name = " \t\n" }, []string{"name"}},
		"a long name":           {func(d *EventDetails) { d.Name = strings.Repeat("a", 201) }, []string{"name"}},
		"a name long by blanks": {func(d *EventDetails) { d.Name = "a" + strings.Repeat(" ", 200) }, []string{"name"}},
		"a name of two lines":   {func(d *EventDetails) { d.Name = "a\r\nb" }, []string{"name"}},
		"a name with NUL":       {func(d *EventDetails) { d.Name = "a\x00" }, []string{"name"}},
		"a name in no encoding": {func(d *EventDetails) { d.Name = "a\xff" }, []string{"name"}},
		"a long description": {
			func(d *EventDetails) { d.Description = strings.Repeat("a", 10_001) },
			[]string{"description"},
		},
		"long texts": {
			func(d *EventDetails) { d.Category, d.Venue, d.City = lengthy, lengthy, lengthy },
			[]string{"category", "venue", "city"},
		},
		"no time zone":              {func(d *EventDetails) { d.Timezone = "" }, []string{"timezone"}},
		"the server's time zone":    {func(d *EventDetails) { d.Timezone = "Local" }, []string{"timezone"}},
		"no such time zone":         {func(d *EventDetails) { d.Timezone = "Europe/Atlantis" }, []string{"timezone"}},
		"a path as a time zone":     {func(d *EventDetails) { d.Timezone = "../../etc/passwd" }, []string{"timezone"}},
		"no currency":               {func(d *EventDetails) { d.Currency = "" }, []string{"currency"}},
		"a small currency":          {func(d *EventDetails) { d.Currency = "eur" }, []string{"currency"}},
		"a long currency":           {func(d *EventDetails) { d.Currency = "EURO" }, []string{"currency"}},
		"a currency of two letters": {func(d *EventDetails) { d.Currency = "Ü" + "R" }, []string{"currency"}},
		"no times": {
			func(d *EventDetails) { d.SalesStartAt, d.StartsAt, d.EndsAt = time.Time{}, time.Time{}, time.Time{} },
			[]string{"starts_at", "ends_at", "ends_at"},
		},
		"too early":           {func(d *EventDetails) { d.SalesStartAt, d.StartsAt = time.Time{}, year(2000).Add(-1) }, []string{"starts_at"}},
		"never on sale":       {func(d *EventDetails) { d.SalesStartAt = d.StartsAt }, []string{"sales_start_at"}},
		"too late":            {func(d *EventDetails) { d.EndsAt = year(10_000) }, []string{"ends_at"}},
		"ends when it starts": {func(d *EventDetails) { d.EndsAt = d.StartsAt }, []string{"ends_at"}},
		"sales out of bounds": {
			func(d *EventDetails) { d.SalesStartAt, d.SalesEndAt = year(1999), year(10_000) },
			[]string{"sales_start_at", "sales_end_at"},
		},
		"sales end when they start":  {func(d *EventDetails) { d.SalesEndAt = d.SalesStartAt }, []string{"sales_end_at"}},
		"sales end at an early time": {func(d *EventDetails) { d.SalesStartAt, d.SalesEndAt = time.Time{}, year(2000) }, nil},
		"a short hold":               {func(d *EventDetails) { d.HoldTTL = HoldTTLMin - 1 }, []string{"hold_ttl_seconds"}},
		"a long hold": {
			func(d *EventDetails) { d.HoldTTL = HoldTTLMax + time.Second },
			[]string{"hold_ttl_seconds"},
		},
		"a hold of a broken second":    {func(d *EventDetails) { d.HoldTTL = 1500 * ms }, []string{"hold_ttl_seconds"}},
		"a limit of a user below none": {func(d *EventDetails) { d.MaxPerUser = -1 }, []string{"max_per_user"}},
		"a great limit of a user":      {func(d *EventDetails) { d.MaxPerUser = MaxPerUserMax + 1 }, []string{"max_per_user"}},
		"no seat in a booking":         {func(d *EventDetails) { d.MaxPerBooking = 0 }, []string{"max_per_booking"}},
		"too many seats in a booking": {
			func(d *EventDetails) { d.MaxPerBooking = MaxPerBookingMax + 1 },
			[]string{"max_per_booking"},
		},
		"no tiers":                 {tiers(), []string{"tiers", "capacity"}},
		"too many tiers":           {tiers(many(TiersMax + 1)...), []string{"tiers"}},
		"a tier without a name":    {tiers(Tier{Capacity: 1}), []string{"tiers[0].name"}},
		"a tier with a blank name": {tiers(Tier{Name: " ", Capacity: 1}), []string{"tiers[0].name"}},
		"a tier with a long name":  {tiers(Tier{Name: lengthy, Capacity: 1}), []string{"tiers[0].name"}},
		"a tier with a NUL":        {tiers(Tier{Name: "\x00", Capacity: 1}), []string{"tiers[0].name"}},
		"a tier owes seats": {
			tiers(Tier{Name: "a", Capacity: -1}, Tier{Name: "b", Capacity: 2}),
			[]string{"tiers[0].capacity"},
		},
		"a tier is too large": {
			tiers(Tier{Name: "a", Capacity: CapacityMax + 1}),
			[]string{"tiers[0].capacity", "capacity"},
		},
		"a retired tier has seats": {tiers(Tier{Name: "a", Capacity: 1, Retired: true}), []string{"tiers[0].capacity"}},
		"prices out of bounds": {
			tiers(Tier{Name: "a", Capacity: 1, PriceMinor: -1}, Tier{Name: "b", BasePriceMinor: PriceMinorMax + 1}),
			[]string{"tiers[0].base_price_minor", "tiers[1].base_price_minor"},
		},
		"no seats": {tiers(Tier{Name: "a"}), []string{"capacity"}},
		"too many seats in all": {
			tiers(Tier{Name: "a", Capacity: CapacityMax}, Tier{Name: "b", Capacity: 1}), []string{"capacity"},
		},
		"a sum beyond 64 bits": {
			tiers(Tier{Name: "a", Capacity: math.MaxInt}, Tier{Name: "b", Capacity: math.MaxInt}, Tier{Name: "c", Capacity: 3}),
			[]string{"tiers[0].capacity", "tiers[1].capacity"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			details := newTestEvent(2, 10).EventDetails
			test.change(&details)
			if got := fields(t, details.Validate()); !slices.Equal(got, test.want) {
				t.Fatalf("got %v, want %v", got, test.want)
			}
		})
	}
}

var lengthy = strings.Repeat("a", 201)

func TestEventDetails_NormalizeGivesWhatTheJournalKeeps(t *testing.T) {
	details := newTestEvent(1, 10).EventDetails
	details.StartsAt = time.Date(2050, 1, 1, 1, 2, 3, 4_999_999, time.FixedZone("", 3600))
	details.SalesStartAt, details.HoldTTL, details.MaxPerBooking = time.Time{}, 0, 0
	details.Normalize()
	if want := time.Date(2050, 1, 1, 0, 2, 3, 4_000_000, time.UTC); details.StartsAt != want {
		t.Errorf("got %v, want %v", details.StartsAt, want)
	}
	if !details.SalesStartAt.IsZero() || !details.SalesEndAt.IsZero() {
		t.Errorf("unset times are set to %v, %v", details.SalesStartAt, details.SalesEndAt)
	}
	if details.HoldTTL != HoldTTLDefault || details.MaxPerBooking != MaxPerBookingDef {
		t.Errorf("got a hold of %v, %d seats", details.HoldTTL, details.MaxPerBooking)
	}
	again := details
	again.Normalize()
	if !reflect.DeepEqual(again, details) {
		t.Error(diff(details, again))
	}
	if err := details.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEvent_IsOnSaleFromStartToEnd(t *testing.T) {
	event := newTestEvent(1, 10)
	hour := time.Hour
	for name, test := range map[string]struct {
		status   EventStatus
		from, to time.Time
		at       time.Time
		wantEnd  time.Time
		want     bool
	}{
		"from the beginning":               {EventPublished, epoch, epoch.Add(hour), epoch, epoch.Add(hour), true},
		"not before":                       {EventPublished, epoch, epoch.Add(hour), epoch.Add(-1), epoch.Add(hour), false},
		"until the end":                    {EventPublished, epoch, epoch.Add(hour), epoch.Add(hour - 1), epoch.Add(hour), true},
		"not at the end":                   {EventPublished, epoch, epoch.Add(hour), epoch.Add(hour), epoch.Add(hour), false},
		"from when it is published":        {EventPublished, time.Time{}, time.Time{}, time.Time{}.Add(hour), start, true},
		"until it starts":                  {EventPublished, epoch, time.Time{}, start.Add(-1), start, true},
		"not when it has started":          {EventPublished, epoch, time.Time{}, start, start, false},
		"not when it has started, though":  {EventPublished, epoch, start.Add(hour), start, start, false},
		"not as a draft":                   {EventDraft, epoch, epoch.Add(hour), epoch, epoch.Add(hour), false},
		"not when the event is cancelled":  {EventCancelled, epoch, epoch.Add(hour), epoch, epoch.Add(hour), false},
		"not in a status that is not one ": {EventStatus(9), epoch, epoch.Add(hour), epoch, epoch.Add(hour), false},
	} {
		event.Status, event.SalesStartAt, event.SalesEndAt = test.status, test.from, test.to
		if got := event.OnSale(test.at); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
		if got := event.SalesEnd(); got != test.wantEnd {
			t.Errorf("%s: sales end %v, want %v", name, got, test.wantEnd)
		}
	}
}

func TestSoleTier_IsTheOneOnOffer(t *testing.T) {
	offered, retired := Tier{Name: "a"}, Tier{Name: "b", Retired: true}
	for name, test := range map[string]struct {
		tiers []Tier
		want  int
	}{
		"none":                    {nil, -1},
		"one":                     {[]Tier{offered}, 0},
		"two":                     {[]Tier{offered, offered}, -1},
		"one that is retired":     {[]Tier{retired}, -1},
		"one and retired ones":    {[]Tier{retired, offered, retired}, 1},
		"three, one of them not":  {[]Tier{offered, retired, offered}, -1},
		"two after a retired one": {[]Tier{retired, offered, offered}, -1},
	} {
		if got, sole := SoleTier(test.tiers); got != test.want || sole != (test.want >= 0) {
			t.Errorf("%s: got %d, %v, want %d", name, got, sole, test.want)
		}
	}
}

func TestAvailability_AddsUp(t *testing.T) {
	var a Availability
	a.Add(TierAvailability{Capacity: 10, Held: 2, Booked: 3})
	a.Add(TierAvailability{Capacity: 5, Held: 1})
	if got := a.Totals(); got != (TierAvailability{15, 3, 3}) || got.Available() != 9 || a.Tiers[0].Available() != 5 {
		t.Fatalf("got %+v", a)
	}
}

func TestError_IsKnownByItsCode(t *testing.T) {
	soldOut := &Error{Code: CodeSoldOut, Available: 3}
	if !errors.Is(soldOut, ErrSoldOut) || errors.Is(soldOut, ErrKeyReused) || errors.Is(soldOut, errors.New("sold_out")) {
		t.Error("sold out is not what it is")
	}
	if got, want := ErrSoldOut.Error(), "sold_out: Not enough seats are free."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var fields FieldErrors
	if err := fields.Err(); err != nil {
		t.Errorf("no fields are wrong: %v", err)
	}
	fields.Add("a", "is bad")
	fields.Add("b", "is worse")
	if got, want := fields.Err().Error(), "invalid_request: a is bad; b is worse"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for range 2 * fieldErrorsMax {
		fields.Add("c", "is one of many")
	}
	if len(fields) != fieldErrorsMax {
		t.Errorf("%d fields are kept, want %d", len(fields), fieldErrorsMax)
	}
}

func TestBatch_LastSeq(t *testing.T) {
	if got := (&Batch{PrevSeq: 7, Entries: make([]Entry, 3)}).LastSeq(); got != 10 {
		t.Errorf("got %d, want 10", got)
	}
}
