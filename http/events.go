package http

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// The query parameters of lists.
var (
	eventsQuery   = []string{"q", "category", "city", "from", "to", "sort", "limit", "cursor"}
	managedQuery  = append(slices.Clone(eventsQuery), "status")
	bookingsQuery = []string{"status", "limit", "cursor"}
	exportQuery   = []string{"status"}
)

// popularEvents is the number of events in GET /events/popular.
const popularEvents = 5

func (s *Server) eventRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/events", handle: s.listEvents, query: eventsQuery},
		{method: http.MethodGet, path: "/events/popular", handle: s.popularEvents},
		{method: http.MethodGet, path: "/events/:id", handle: s.getEvent},
		{method: http.MethodGet, path: "/events/:id/availability", handle: s.getAvailability},
		{method: http.MethodPost, path: "/events/:id/book", handle: s.book, access: bookingsOwn, verified: true, limit: limitBook, key: keyBook},
	}
}

func eventParam(c *gin.Context) (evently.EventID, error) {
	id, err := evently.ParseEventID(c.Param("id"))
	if err != nil {
		return 0, evently.ErrEventNotFound // ids are opaque: a text that is none names nothing
	}
	return id, nil
}

// publicState returns the state of an event that is or was published. To the public a draft is not there.
func (s *Server) publicState(c *gin.Context) (*evently.State, error) {
	id, err := eventParam(c)
	if err != nil {
		return nil, err
	}
	state, err := s.caches.states.get(c.Request.Context(), id)
	if err != nil {
		return nil, err
	}
	if state.Event.Status == evently.EventDraft {
		return nil, evently.ErrEventNotFound
	}
	return state, nil
}

func (s *Server) getEvent(c *gin.Context) error {
	state, err := s.publicState(c)
	if err != nil {
		return err
	}
	s.caches.details.of(state).write(c)
	return nil
}

// writeEvent answers with an event, or tells that the client has it already.
func writeEvent(c *gin.Context, state *evently.State) { newDetail(state).write(c) }

// detail is an event as it is answered with. It is shared and never modified.
type detail struct {
	state *evently.State
	tag   []string
	body  []byte
}

func newDetail(state *evently.State) *detail {
	return &detail{state, []string{eventTag(state.Event)}, encoded(newEventJSON(state))}
}

func (d *detail) write(c *gin.Context) {
	c.Writer.Header()["Etag"] = d.tag
	if matched, _ := matchTag(c.Request.Header["If-None-Match"], d.tag[0], true); matched {
		c.Writer.WriteHeader(http.StatusNotModified)
		c.Writer.WriteHeaderNow()
		return
	}
	writeBody(c, http.StatusOK, d.body)
}

func (s *Server) getAvailability(c *gin.Context) error {
	state, err := s.publicState(c)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, newAvailabilityJSON(state))
	return nil
}

func (s *Server) listEvents(c *gin.Context) error {
	query, err := listQueryOf(c)
	if err != nil {
		return err
	}
	list, err := s.caches.lists.get(c.Request.Context(), query)
	if err != nil {
		return err
	}
	writeList(c, s.caches.newest(list.states), newEventJSON, nextCursor(list.next, query.order()))
	return nil
}

func (s *Server) popularEvents(c *gin.Context) error {
	list, err := s.caches.lists.get(c.Request.Context(), listQuery{sort: evently.ByPopularity, limit: popularEvents})
	if err != nil {
		return err
	}
	states := s.caches.newest(list.states)
	slices.SortStableFunc(states, func(a, b *evently.State) int { return cmp.Compare(b.Totals().Booked, a.Totals().Booked) })
	writeJSON(c, http.StatusOK, gin.H{"data": mapped(states, newEventJSON)})
	return nil
}

// listQuery is a normalized query for events, so that equal questions share one answer.
type listQuery struct {
	text, category, city string // trimmed and lower-case; "": all
	from, to             time.Time
	sort                 evently.EventSort
	limit                int
	after                evently.Cursor // zero: from the beginning
}

// queryRunesMax bounds the texts of a listQuery.
const queryRunesMax = 200

// listQueryOf reads the query parameters of a list of events.
func listQueryOf(c *gin.Context) (listQuery, error) {
	var fields evently.FieldErrors
	text := func(name string) string {
		value := c.Query(name)
		if !utf8.ValidString(value) || utf8.RuneCountInString(value) > queryRunesMax || strings.ContainsRune(value, 0) {
			fields.Add(name, fmt.Sprintf("must be a text of at most %d characters", queryRunesMax))
		}
		return strings.ToLower(strings.TrimSpace(value))
	}
	moment := func(name string) time.Time {
		value := c.Query(name)
		if value == "" {
			return time.Time{}
		}
		t, ok := parseTime(value)
		if !ok {
			fields.Add(name, "must be a time such as 2027-05-01T18:00:00Z")
		}
		return t.UTC()
	}
	query := listQuery{text: text("q"), category: text("category"), city: text("city"), from: moment("from"), to: moment("to")}
	switch c.Query("sort") {
	case "", "starts_at":
	case "popularity":
		query.sort = evently.ByPopularity
	default:
		fields.Add("sort", "must be starts_at or popularity")
	}
	page, err := pageOf(c, query.order())
	if refusal := (*evently.Error)(nil); errors.As(err, &refusal) {
		fields = append(fields, refusal.Fields...)
	}
	if err := fields.Err(); err != nil {
		return listQuery{}, err
	}
	query.limit = page.Limit
	if page.After != nil {
		query.after = *page.After
	}
	return query, nil
}

func (q *listQuery) filter(statuses ...evently.EventStatus) evently.EventFilter {
	return evently.EventFilter{
		Text: q.text, Category: q.category, City: q.city, From: q.from, To: q.to, Statuses: statuses, Sort: q.sort,
	}
}

// order is the one that the query's cursors belong to.
func (q *listQuery) order() listOrder {
	if q.sort == evently.ByPopularity {
		return eventsByPopularity
	}
	return eventsByStart
}

func (q *listQuery) page() evently.Page {
	page := evently.Page{Limit: q.limit}
	if q.after != (evently.Cursor{}) {
		page.After = &q.after
	}
	return page
}

// eventTag is the entity tag of an event's details. Seats come and go without a new one.
func eventTag(event *evently.Event) string {
	return strconv.Quote(strconv.FormatUint(event.Version, 10))
}

// matchTag reports whether the values of an If-Match or If-None-Match header name an entity tag, RFC 9110 13.1, and whether
// they are well formed. weak says whether a weak tag in them matches too.
func matchTag(values []string, tag string, weak bool) (matched, wellFormed bool) {
	rest := strings.TrimSpace(strings.Join(values, ","))
	if rest == "*" {
		return true, true
	}
	rest = strings.TrimLeft(rest, ", \t") // empty elements are allowed
	for rest != "" {
		strong, isWeak := strings.CutPrefix(rest, "W/")
		end := strings.IndexByte(strings.TrimPrefix(strong, `"`), '"') + 1
		if end == 0 || strong[0] != '"' || strings.ContainsAny(strong[1:end], " \t") {
			return false, false
		}
		matched = matched || strong[:end+1] == tag && (weak || !isWeak)
		rest = strings.TrimLeft(strong[end+1:], " \t")
		if rest != "" && rest[0] != ',' {
			return false, false
		}
		rest = strings.TrimLeft(rest, ", \t")
	}
	return matched, true
}
