package main

import (
	"encoding/csv"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/cmd/evently/proctest"
)

// An export has every reservation once, over several pages, and the guarded name of who made it.
func TestExport_HasEveryReservationOnce(t *testing.T) {
	t.Parallel()
	const reservations, clients = evently.ExportPageMax + 300, 8
	o := openTheatre(t, 1)
	o.users[0].Must(t, 201, "POST", "/register", "", `{"email":"eve@example.com","password":"a-long-enough-password","name":"=HYPERLINK(\"x\")"}`)
	var session struct {
		AccessToken string `json:"access_token"`
	}
	into(t, o.users[0].Must(t, 200, "POST", "/login", "", `{"email":"eve@example.com","password":"a-long-enough-password"}`), &session)
	path := o.show(t, 2*reservations, time.Hour, map[string]any{"timezone": "America/New_York"})
	plain := proctest.Plain(t)
	var crowd sync.WaitGroup
	for client := range clients {
		token := o.users[0].Token
		if client == 0 {
			token = session.AccessToken
		}
		c := &proctest.Client{HTTP: plain, API: o.API, Token: token}
		crowd.Go(func() {
			for i := client; i < reservations; i += clients {
				a, err := c.Send(t.Context(), "POST", path+"/book", fmt.Sprint("k", i), fmt.Sprintf(`{"quantity":%d}`, 1+i%2))
				if err != nil || a.Status != 201 {
					t.Errorf("book: %d %s %v", a.Status, a.Body, err)
					return
				}
			}
		})
	}
	crowd.Wait()
	got := o.admin.Must(t, 200, "GET", "/admin"+path+"/bookings.csv", "", "")
	records, err := csv.NewReader(strings.NewReader(string(got.Body))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 1+reservations {
		t.Fatalf("%d records, want %d and the header", len(records), reservations)
	}
	column := make(map[string]int)
	for i, name := range records[0] {
		column[name] = i
	}
	seen, named, seats := make(map[string]bool), 0, 0
	for _, record := range records[1:] {
		seen[record[column["id"]]] = true
		if record[column["quantity"]] == "2" {
			seats++
		}
		seats++
		at, atErr := time.Parse(time.RFC3339, record[column["created_at"]])
		local, localErr := time.Parse(time.RFC3339, record[column["created_at_local"]])
		_, offset := local.Zone()
		if atErr != nil || localErr != nil || !at.Equal(local) || !strings.HasSuffix(record[column["created_at"]], "Z") || offset >= 0 {
			t.Fatalf("created at %s, in New York %s", record[column["created_at"]], record[column["created_at_local"]])
		}
		if record[column["email"]] == "eve@example.com" && record[column["name"]] == `'=HYPERLINK("x")` {
			named++
		}
	}
	if len(seen) != reservations || named != (reservations+clients-1)/clients || seats != o.counts(t, path).Held {
		t.Errorf("%d ids of %d reservations, %d of eve, %d seats of %d", len(seen), reservations, named, seats, o.counts(t, path).Held)
	}
	o.users[0].Must(t, 403, "GET", "/admin"+path+"/bookings.csv", "", "")
	o.close(t)
}
