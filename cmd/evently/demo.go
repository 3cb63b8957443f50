package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/evently/evently"
)

// demoEvent is an event of the demo catalogue. Its id is made from its slug, so that seeding again finds it.
type demoEvent struct {
	slug                        string
	name, description, category string
	venue, city, timezone       string
	currency                    string
	inDays, hour, minute        int // start, local time
	length                      time.Duration
	salesInDays                 int // sales start, 0: at once
	maxPerBooking               int
	tiers                       []evently.Tier
}

func seats(name string, capacity int, priceMinor int64) evently.Tier {
	return evently.Tier{Name: name, Capacity: capacity, BasePriceMinor: priceMinor, PriceMinor: priceMinor}
}

// demoEvents spread over cities, time zones, currencies, sizes and prices. One sells out at once, one is free, one is
// not on sale yet.
var demoEvents = []demoEvent{
	{
		slug: "northern-lights", name: "Northern Lights: A Night of New Orchestral Music", category: "Concert",
		description: "Three premieres and Sibelius' Fifth, with a talk by the composers before the concert.",
		venue:       "Harbour Hall", city: "Hamburg", timezone: "Europe/Berlin", currency: "EUR",
		inDays: 21, hour: 20, length: 150 * time.Minute, maxPerBooking: 6,
		tiers: []evently.Tier{seats("Stalls", 900, 6900), seats("Balcony", 600, 4500), seats("Gallery", 300, 2400)},
	},
	{
		slug: "stadium-summer", name: "Stadium Summer: The Paper Lanterns", category: "Concert",
		description: "The only open-air show of the tour. Doors open three hours before the first act.",
		venue:       "Riverside Stadium", city: "London", timezone: "Europe/London", currency: "GBP",
		inDays: 75, hour: 17, minute: 30, length: 5 * time.Hour, maxPerBooking: 8,
		tiers: []evently.Tier{seats("Standing", 30000, 7500), seats("Seated", 18000, 9500), seats("Hospitality", 400, 32000)},
	},
	{
		slug: "cellar-session", name: "Cellar Session with the Ines Marlow Trio", category: "Concert",
		description: "Jazz in a vaulted cellar. Few seats: when they are gone, they are gone.",
		venue:       "The Vault", city: "Vienna", timezone: "Europe/Vienna", currency: "EUR",
		inDays: 6, hour: 21, length: 2 * time.Hour, maxPerBooking: 4,
		tiers: []evently.Tier{seats("General admission", 12, 2800)},
	},
	{
		slug: "gopher-days", name: "Gopher Days", category: "Conference",
		description: "Two days about concurrent programs that stay correct: talks, workshops and a hallway track.",
		venue:       "Congress Centre", city: "Amsterdam", timezone: "Europe/Amsterdam", currency: "EUR",
		inDays: 48, hour: 9, length: 32 * time.Hour, maxPerBooking: 10,
		tiers: []evently.Tier{seats("Early bird", 150, 29900), seats("Regular", 600, 39900), seats("Workshop day", 120, 24900)},
	},
	{
		slug: "harbour-marathon", name: "Harbour Marathon", category: "Sport",
		description: "42.195 km along the water, flat and fast. A place includes timing, medal and a warm soup.",
		venue:       "Circular Quay", city: "Sydney", timezone: "Australia/Sydney", currency: "AUD",
		inDays: 90, hour: 6, minute: 15, length: 7 * time.Hour, maxPerBooking: 1,
		tiers: []evently.Tier{seats("Marathon", 12000, 14500), seats("Half marathon", 15000, 9500)},
	},
	{
		slug: "derby", name: "City Derby", category: "Sport",
		description: "The match of the year. Home and away supporters sit apart.",
		venue:       "Arena Norte", city: "Madrid", timezone: "Europe/Madrid", currency: "EUR",
		inDays: 14, hour: 18, minute: 30, length: 2 * time.Hour, maxPerBooking: 4,
		tiers: []evently.Tier{seats("Home", 24000, 5500), seats("Away", 3000, 5500), seats("Family stand", 4000, 3000)},
	},
	{
		slug: "lighthouse-keeper", name: "The Lighthouse Keeper", category: "Theatre",
		description: "A new play about waiting, in one act and without an interval.",
		venue:       "Little Theatre", city: "New York", timezone: "America/New_York", currency: "USD",
		inDays: 10, hour: 19, minute: 30, length: 110 * time.Minute, maxPerBooking: 6,
		tiers: []evently.Tier{seats("Orchestra", 180, 12900), seats("Mezzanine", 90, 8900)},
	},
	{
		slug: "midnight-improv", name: "Midnight Improv", category: "Comedy",
		description: "Nobody knows what will happen, least of all the players.",
		venue:       "Back Room", city: "Chicago", timezone: "America/Chicago", currency: "USD",
		inDays: 3, hour: 23, minute: 30, length: 75 * time.Minute, maxPerBooking: 8,
		tiers: []evently.Tier{seats("General admission", 80, 1500)},
	},
	{
		slug: "ink-and-paper", name: "Ink and Paper: Woodblock Workshop", category: "Workshop",
		description: "Carve and print your own block in an afternoon. Tools and paper are provided.",
		venue:       "Studio Kaze", city: "Tokyo", timezone: "Asia/Tokyo", currency: "JPY",
		inDays: 17, hour: 13, length: 4 * time.Hour, maxPerBooking: 2,
		tiers: []evently.Tier{seats("Place", 16, 8800)},
	},
	{
		slug: "monsoon-film", name: "Monsoon Film Festival: Opening Night", category: "Film",
		description: "The opening film with its director present, under the roof in case of rain.",
		venue:       "Regal Picture House", city: "Mumbai", timezone: "Asia/Kolkata", currency: "INR",
		inDays: 33, hour: 19, length: 3 * time.Hour, maxPerBooking: 10,
		tiers: []evently.Tier{seats("Stalls", 500, 60000), seats("Box", 40, 250000)},
	},
	{
		slug: "open-archive", name: "Open Archive: A Tour of the City's Maps", category: "Exhibition",
		description: "Admission is free; the vault holds only thirty at a time.",
		venue:       "State Archive", city: "São Paulo", timezone: "America/Sao_Paulo", currency: "BRL",
		inDays: 8, hour: 15, length: 90 * time.Minute, maxPerBooking: 3,
		tiers: []evently.Tier{seats("Free admission", 30, 0)},
	},
	{
		slug: "winter-ball", name: "Winter Ball", category: "Gala",
		description: "Dinner, dance and a brass band at midnight. Sales open in a week.",
		venue:       "Crystal Pavilion", city: "Cape Town", timezone: "Africa/Johannesburg", currency: "ZAR",
		inDays: 60, hour: 19, length: 6 * time.Hour, salesInDays: 7, maxPerBooking: 12,
		tiers: []evently.Tier{seats("Dinner and dance", 320, 195000), seats("Dance", 400, 65000)},
	},
}

// seedDemo adds those events of the demo catalogue that were never added. Their times count from now.
func seedDemo(
	ctx context.Context, catalogue evently.Catalogue, organizer evently.UserID, holdTTL time.Duration, now time.Time,
) (added int, err error) {
	for i := range demoEvents {
		event, err := demoEvents[i].event(organizer, holdTTL, now)
		if err != nil {
			return added, fmt.Errorf("demo event %s: %w", demoEvents[i].slug, err)
		}
		if _, err := catalogue.State(ctx, event.ID); err == nil {
			continue
		} else if !errors.Is(err, evently.ErrEventNotFound) {
			return added, fmt.Errorf("demo event %s: %w", demoEvents[i].slug, err)
		}
		if _, err := catalogue.CreateEvent(ctx, event, organizer, "demo"); err != nil {
			return added, fmt.Errorf("demo event %s: %w", demoEvents[i].slug, err)
		}
		added++
	}
	return added, nil
}

func (d *demoEvent) event(organizer evently.UserID, holdTTL time.Duration, now time.Time) (*evently.Event, error) {
	zone, err := time.LoadLocation(d.timezone)
	if err != nil {
		return nil, err
	}
	local := now.In(zone)
	start := time.Date(local.Year(), local.Month(), local.Day()+d.inDays, d.hour, d.minute, 0, 0, zone)
	sum := sha256.Sum256([]byte("evently demo event " + d.slug))
	event := &evently.Event{
		ID: evently.EventID(binary.BigEndian.Uint64(sum[:8])), Organizer: organizer, Status: evently.EventPublished, Version: 1,
		CreatedAt: now.UTC().Truncate(time.Millisecond),
		EventDetails: evently.EventDetails{
			Name: d.name, Description: d.description, Category: d.category, Venue: d.venue, City: d.city,
			Timezone: d.timezone, Currency: d.currency, StartsAt: start, EndsAt: start.Add(d.length),
			HoldTTL: holdTTL, MaxPerBooking: d.maxPerBooking, Tiers: d.tiers,
		},
	}
	if d.salesInDays > 0 {
		event.SalesStartAt = now.AddDate(0, 0, d.salesInDays)
	}
	event.Normalize()
	return event, event.Validate()
}
