package http

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// Membership is how a node sees its cluster.
type Membership struct {
	Members int  `json:"members"` // alive, itself among them
	Quorum  int  `json:"quorum"`  // members without which events are not served
	Quorate bool `json:"quorate"` // there are as many
	Serving bool `json:"serving"` // the node hosts events
}

// System is a cluster at a moment, as one of its nodes found it.
type System struct {
	AsOf      time.Time    `json:"as_of"`
	Cluster   Membership   `json:"cluster"` // as the node that was asked sees it
	Nodes     []NodeStatus `json:"nodes"`
	Placement *Placement   `json:"placement"` // nil: no event was asked for
}

// NodeState is what the other nodes make of a node.
type NodeState string

// The states of a node.
const (
	NodeAlive   NodeState = "alive"
	NodeBlocked NodeState = "blocked" // shut out, for it was taken for dead; it comes back under another id
	NodeGone    NodeState = "gone"    // it left, or does not answer the cluster
)

// NodeStatus is how a node is. Nodes tell each other theirs as JSON. Fields that are nil are unknown, as those below Version
// all are of a node that did not answer. Rates are of the last seconds, and percentiles of the commits in them, nil for none.
type NodeStatus struct {
	ID        string     `json:"id"`
	Address   string     `json:"address"` // of actor traffic
	State     NodeState  `json:"state"`
	Serving   bool       `json:"serving"` // it hosts events
	This      bool       `json:"this"`    // it is the one that answers the request
	StartedAt *time.Time `json:"started_at"`
	Version   *string    `json:"version"`

	ActiveEvents             *int     `json:"active_events"`    // events in memory
	WaitingRequests          *int     `json:"waiting_requests"` // in the queues of events
	AppendQueue              *int     `json:"append_queue"`     // batches of entries that wait to be written
	InFlight                 *int     `json:"in_flight"`        // HTTP requests being answered
	CommitsPerSecond         *float64 `json:"commits_per_second"`
	CommitP50Millis          *float64 `json:"commit_p50_ms"`
	CommitP99Millis          *float64 `json:"commit_p99_ms"`
	BookingsPerSecond        *float64 `json:"bookings_per_second"`
	HTTPRequestsPerSecond    *float64 `json:"http_requests_per_second"`
	DatabaseConnections      *int     `json:"database_connections"`
	DatabaseConnectionsInUse *int     `json:"database_connections_in_use"`

	Error *string `json:"error"` // why numbers are unknown, in words for administrators; nil: the node answered
}

// Placement is where an event belongs.
type Placement struct {
	EventID string  `json:"event_id"`
	Node    *string `json:"node"` // id; nil: no node can serve it now
}

type systemJSON struct {
	System
	Totals systemTotals `json:"totals"`
}

// systemTotals are the sums over the nodes that answered.
type systemTotals struct {
	Nodes                    int     `json:"nodes"` // that answered
	ActiveEvents             int     `json:"active_events"`
	WaitingRequests          int     `json:"waiting_requests"`
	AppendQueue              int     `json:"append_queue"`
	InFlight                 int     `json:"in_flight"`
	CommitsPerSecond         float64 `json:"commits_per_second"`
	BookingsPerSecond        float64 `json:"bookings_per_second"`
	HTTPRequestsPerSecond    float64 `json:"http_requests_per_second"`
	DatabaseConnections      int     `json:"database_connections"`
	DatabaseConnectionsInUse int     `json:"database_connections_in_use"`
}

var (
	systemQuery = []string{"event_id"}

	errNoSystem = &evently.Error{
		Code: evently.CodeUnavailable, Detail: "This node cannot ask the others.", RetryAfter: time.Minute,
	}
)

// getSystem is GET /admin/analytics/system. It reads nothing but what the nodes tell, so that it works when little else does.
func (s *Server) getSystem(c *gin.Context) error {
	var event evently.EventID
	if text, found := c.GetQuery("event_id"); found {
		var err error
		if event, err = evently.ParseEventID(text); err != nil {
			return invalid("event_id", "must be the id of an event")
		}
	}
	if s.config.System == nil {
		return errNoSystem
	}
	system, err := s.config.System(c.Request.Context(), event)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, newSystemJSON(system))
	return nil
}

func newSystemJSON(system *System) *systemJSON {
	told := &systemJSON{System: *system}
	told.AsOf = told.AsOf.UTC()
	told.Nodes = make([]NodeStatus, len(system.Nodes))
	totals := &told.Totals
	for i, node := range system.Nodes {
		if node.StartedAt != nil {
			node.StartedAt = new(node.StartedAt.UTC())
		}
		told.Nodes[i] = node
		if node.Error == nil {
			totals.Nodes++
		}
		add(&totals.ActiveEvents, node.ActiveEvents)
		add(&totals.WaitingRequests, node.WaitingRequests)
		add(&totals.AppendQueue, node.AppendQueue)
		add(&totals.InFlight, node.InFlight)
		add(&totals.CommitsPerSecond, node.CommitsPerSecond)
		add(&totals.BookingsPerSecond, node.BookingsPerSecond)
		add(&totals.HTTPRequestsPerSecond, node.HTTPRequestsPerSecond)
		add(&totals.DatabaseConnections, node.DatabaseConnections)
		add(&totals.DatabaseConnectionsInUse, node.DatabaseConnectionsInUse)
	}
	return told
}

// add adds a number to a sum, if it is known.
func add[N int | float64](sum, number *N) {
	if number != nil {
		*sum += *number
	}
}
