package http

import (
	"slices"

	"github.com/evently/evently"
)

// permission is a right to use routes, or to use them for what belongs to others. Its name is what people call it by.
type permission string

// The permissions. Each route of the table names the one that it takes.
const (
	public permission = "" // anyone may: an access token is not looked at

	accountOwn     permission = "account.own"       // one's own account, its sessions and its security log
	bookingsOwn    permission = "bookings.own"      // book, and see and end one's own reservations
	waitlistOwn    permission = "waitlist.own"      // wait for seats, and see and end it
	eventsOwn      permission = "events.manage_own" // make events; see and change one's own, with their bookings, waitlists and prices
	eventsAny      permission = "events.manage_any" // the same for everybody's events
	analyticsRead  permission = "analytics.read"    // figures of the events that one may manage
	pricingRun     permission = "pricing.run"       // have the prices of the events that one may manage set anew at once
	webhooksManage permission = "webhooks.manage"   // have others told of the events that one may manage
	usersManage    permission = "users.manage"      // see users, and give them roles
	auditRead      permission = "audit.read"        // who changed what
	systemRead     permission = "system.read"       // how the nodes are
)

// permissions is the one table of who may do what.
var permissions = map[permission][]evently.Role{
	accountOwn:     {evently.RoleUser, evently.RoleOrganizer, evently.RoleAdmin},
	bookingsOwn:    {evently.RoleUser, evently.RoleOrganizer, evently.RoleAdmin},
	waitlistOwn:    {evently.RoleUser, evently.RoleOrganizer, evently.RoleAdmin},
	eventsOwn:      {evently.RoleOrganizer, evently.RoleAdmin},
	eventsAny:      {evently.RoleAdmin},
	analyticsRead:  {evently.RoleOrganizer, evently.RoleAdmin},
	pricingRun:     {evently.RoleOrganizer, evently.RoleAdmin},
	webhooksManage: {evently.RoleOrganizer, evently.RoleAdmin},
	usersManage:    {evently.RoleAdmin},
	auditRead:      {evently.RoleAdmin},
	systemRead:     {evently.RoleAdmin},
}

// may reports whether a role has a permission. Every role has public.
func may(role evently.Role, needs permission) bool {
	return needs == public || slices.Contains(permissions[needs], role)
}
