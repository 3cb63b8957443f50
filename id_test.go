package evently

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestID_TextForm(t *testing.T) {
	for want, id := range map[string]fmt.Stringer{
		"evt_0000000000001":              EventID(1),
		"usr_000000000000z":              UserID(31),
		"usr_0000000000010":              UserID(32),
		"evt_fzzzzzzzzzzzz":              EventID(math.MaxUint64),
		"evt_8000000000000":              EventID(1 << 63),
		"rsv_0000000000001fzzzzzzzzzzzz": ReservationID{1, math.MaxUint64},
		"wtl_0000000000001fzzzzzzzzzzzz": WaiterID{1, math.MaxUint64},
	} {
		if got := id.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestID_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Uint64Min(1).Draw(t, "a")
		b := rapid.Uint64Min(1).Draw(t, "b")
		if got, err := ParseEventID(EventID(a).String()); err != nil || got != EventID(a) {
			t.Fatalf("got %v, %v, want %v", got, err, EventID(a))
		}
		if got, err := ParseUserID(UserID(a).String()); err != nil || got != UserID(a) {
			t.Fatalf("got %v, %v, want %v", got, err, UserID(a))
		}
		id := ReservationID{EventID(a), Token(b)}
		if got, err := ParseReservationID(id.String()); err != nil || got != id {
			t.Fatalf("got %v, %v, want %v", got, err, id)
		}
		if got, err := ParseWaiterID(WaiterID(id).String()); err != nil || got != WaiterID(id) {
			t.Fatalf("got %v, %v, want %v", got, err, WaiterID(id))
		}
		if got := string(id.AppendText([]byte("x"))); got != "x"+id.String() {
			t.Fatalf("got %q", got)
		}
	})
}

// One object has one URL, so each id has one text.
func TestID_OnlyTheCanonicalFormParses(t *testing.T) {
	digits := "04hmasw9nf6yy"
	if _, err := ParseEventID("evt_" + digits); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", "evt_", digits, "evt" + digits, "usr_" + digits, "evt_" + digits[1:], "evt_0" + digits, "evt_ " + digits[1:], " evt_" + digits,
		"evt_" + digits + "\n", "EVT_" + digits, "evt_" + strings.ToUpper(digits), "evt_0000000000000", "evt_g000000000000",
		"evt_i4hmasw9nf6yy", "evt_0ihmasw9nf6yy", "evt_0lhmasw9nf6yy", "evt_0ohmasw9nf6yy", "evt_0uhmasw9nf6yy", "evt_0-hmasw9nf6yy",
		"evt_0\xffhmasw9nf6yy", "evt_evt_" + digits, "evt_" + strings.Repeat("z", 1000),
	} {
		if id, err := ParseEventID(s); err == nil {
			t.Errorf("%q: parses as %v", s, id)
		}
		if id, err := ParseUserID(strings.Replace(s, "evt", "usr", 1)); err == nil && !strings.HasPrefix(s, "usr_") {
			t.Errorf("%q: parses as %v", s, id)
		}
	}
	for _, s := range []string{
		"", "rsv_", "rsv_" + digits, digits + digits, "evt_" + digits + digits, "rsv_" + digits + "_" + digits, "rsv_" + digits + digits + "0",
		"rsv_0000000000000" + digits, "rsv_" + digits + "0000000000000", "rsv_g000000000000" + digits, "rsv_" + digits + "g000000000000",
		"rsv_" + strings.ToUpper(digits) + digits, "rsv_" + digits + digits[:12] + "u",
	} {
		if id, err := ParseReservationID(s); err == nil {
			t.Errorf("%q: parses as %v", s, id)
		}
		waiter := strings.Replace(s, "rsv_", "wtl_", 1)
		if id, err := ParseWaiterID(waiter); err == nil {
			t.Errorf("%q: parses as %v", waiter, id)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"evt_04hmasw9nf6yy", "usr_fzzzzzzzzzzzz", "rsv_04hmasw9nf6yy0000000000001", "t32", "t01", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseEventID(s); err == nil && (id == 0 || id.String() != s) {
			t.Errorf("event id %q parses as %v", s, id)
		}
		if id, err := ParseUserID(s); err == nil && (id == 0 || id.String() != s) {
			t.Errorf("user id %q parses as %v", s, id)
		}
		if id, err := ParseReservationID(s); err == nil && (id.Event == 0 || id.Token == 0 || id.String() != s) {
			t.Errorf("reservation id %q parses as %v", s, id)
		}
		if id, err := ParseWaiterID(s); err == nil && (id.Event == 0 || id.Token == 0 || id.String() != s) {
			t.Errorf("waiter id %q parses as %v", s, id)
		}
		if i, err := ParseTierID(s); err == nil && (i < 0 || i >= TiersMax || TierID(i) != s) {
			t.Errorf("tier id %q parses as %d", s, i)
		}
	})
}

func TestTierID_RoundTrip(t *testing.T) {
	for i := range TiersMax {
		if got, err := ParseTierID(TierID(i)); err != nil || got != i {
			t.Errorf("got %d, %v, want %d", got, err, i)
		}
	}
	for _, s := range []string{"", "t", "1", "t0", "t01", "t+1", "t-1", "t33", "T1", "t1 ", "t1.0", "t99999999999999999999"} {
		if i, err := ParseTierID(s); err == nil {
			t.Errorf("%q: parses as %d", s, i)
		}
	}
}

// The digest is stored: it must never change.
func TestBookKey_IsTheDigestOfUserAndKey(t *testing.T) {
	for _, key := range []string{"", "a", strings.Repeat("k", 255), strings.Repeat("k", 256)} {
		text := append([]byte{1, 2, 3, 4, 5, 6, 7, 8}, key...)
		sum := sha256.Sum256(text)
		want := Key{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
		if got := BookKey(0x0102030405060708, key); got != want {
			t.Errorf("%.10q: got %x, want %x", key, got, want)
		}
	}
	seen := map[Key]string{{}: "no key"}
	for user := range UserID(50) {
		for n := range 50 {
			key, name := BookKey(user, fmt.Sprint("key ", n)), fmt.Sprint(user, " ", n)
			if other, found := seen[key]; found {
				t.Fatalf("%s and %s have one digest", name, other)
			}
			seen[key] = name
			if other, found := seen[WaitKey(user, fmt.Sprint("key ", n))]; found {
				t.Fatalf("%s has the digest of the booking %s when it waits", name, other)
			}
		}
	}
	sum := sha256.Sum256([]byte("\x01\x02\x03\x04\x05\x06\x07\x08waitlist\x00a"))
	want := Key{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
	if got := WaitKey(0x0102030405060708, "a"); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestBookKey_AllocatesNothing(t *testing.T) {
	key := strings.Repeat("k", 255)
	if allocs := testing.AllocsPerRun(100, func() { BookKey(1, key); WaitKey(1, key) }); allocs > 0 {
		t.Fatalf("got %v allocations", allocs)
	}
}
