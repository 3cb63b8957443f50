package store

import "testing"

// The constraint of the heads, on its own: nothing else here asks Postgres about counts that no ledger would send.
func TestMigrate_TiersFitOnlyWithinTheirCapacity(t *testing.T) {
	b := newBench(t, JournalConfig{})
	for _, c := range []struct {
		capacity, held, booked string
		want                   bool
	}{
		{"{}", "{}", "{}", true},
		{"{5}", "{2}", "{3}", true},
		{"{5}", "{3}", "{3}", false},
		{"{5}", "{6}", "{0}", false},
		{"{5}", "{0}", "{6}", false},
		{"{5}", "{-1}", "{3}", false},
		{"{5}", "{3}", "{-1}", false},
		{"{5,0,7}", "{2,0,7}", "{3,0,0}", true},
		{"{5,0,7}", "{2,0,7}", "{3,0,1}", false},
		{"{5,0,7}", "{2,1,0}", "{3,0,0}", false},
		{"{5,5}", "{1}", "{1,1}", false},
		{"{5,5}", "{1,1}", "{1}", false},
		{"{5}", "{1,1}", "{1,1}", false},
		{"{5}", "{}", "{}", false},
		{"{5}", "{null}", "{0}", false},
		{"{null}", "{0}", "{0}", false},
		{"{5}", "[2:2]={1}", "{1}", false},
		{"{5,5}", "{{1},{1}}", "{1,1}", false},
	} {
		var got bool
		if err := b.pool.QueryRow(t.Context(), "select tiers_fit($1::text::int4[], $2::text::int4[], $3::text::int4[])",
			c.capacity, c.held, c.booked).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != c.want {
			t.Errorf("capacity %s held %s booked %s: got %v, want %v", c.capacity, c.held, c.booked, got, c.want)
		}
	}
	if n := b.count("select count(*) from pg_constraint where conname = 'never_oversold' and conrelid = 'event_heads'::regclass and convalidated"); n != 1 {
		t.Error("the heads have lost their constraint")
	}
}
