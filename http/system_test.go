package http

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

var exampleMembership = Membership{Members: 3, Quorum: 2, Quorate: true, Serving: true}

// exampleNode is a node that answers.
func exampleNode() NodeStatus {
	return NodeStatus{
		ID: "n1", Address: "10.0.0.1:7947", State: NodeAlive, Serving: true, This: true, Version: new("1.2.3"),
		StartedAt:    new(time.Date(2027, time.March, 1, 12, 0, 0, 0, time.FixedZone("", 3600))),
		ActiveEvents: new(1), WaitingRequests: new(2), AppendQueue: new(3), InFlight: new(4),
		CommitsPerSecond: new(5.5), CommitP50Millis: new(6.5), CommitP99Millis: new(7.5), BookingsPerSecond: new(8.5),
		HTTPRequestsPerSecond: new(9.5), DatabaseConnections: new(10), DatabaseConnectionsInUse: new(11),
	}
}

// exampleSystem is a Config.System of two nodes that answer, one of them without commits, and one that does not.
func exampleSystem(_ context.Context, event evently.EventID) (*System, error) {
	idle := exampleNode()
	idle.ID, idle.This, idle.CommitP50Millis, idle.CommitP99Millis = "n2", false, nil, nil
	gone := NodeStatus{ID: "n3", State: NodeGone, Error: new("No answer within a second.")}
	system := &System{
		AsOf:    time.Date(2027, time.March, 1, 12, 0, 0, 0, time.FixedZone("", 3600)),
		Cluster: exampleMembership, Nodes: []NodeStatus{exampleNode(), idle, gone},
	}
	if event != 0 {
		system.Placement = &Placement{EventID: event.String(), Node: new("n2")}
	}
	return system, nil
}

func TestSystem(t *testing.T) {
	w := newSite(t, func(config *Config) { config.System = exampleSystem })
	admin, _ := w.token(t, evently.RoleAdmin)
	ask := func(query string) string {
		t.Helper()
		a := w.do(t, "GET", "/admin/analytics/system"+query, "", "Authorization", admin)
		if a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return string(a.body)
	}
	const numbers = `"version":"1.2.3","active_events":1,"waiting_requests":2,"append_queue":3,"in_flight":4,"commits_per_second":5.5,`
	const more = `"bookings_per_second":8.5,"http_requests_per_second":9.5,"database_connections":10,"database_connections_in_use":11,"error":null},`
	const want = `{"as_of":"2027-03-01T11:00:00Z","cluster":{"members":3,"quorum":2,"quorate":true,"serving":true},"nodes":[` +
		`{"id":"n1","address":"10.0.0.1:7947","state":"alive","serving":true,"this":true,"started_at":"2027-03-01T11:00:00Z",` +
		numbers + `"commit_p50_ms":6.5,"commit_p99_ms":7.5,` + more +
		`{"id":"n2","address":"10.0.0.1:7947","state":"alive","serving":true,"this":false,"started_at":"2027-03-01T11:00:00Z",` +
		numbers + `"commit_p50_ms":null,"commit_p99_ms":null,` + more +
		`{"id":"n3","address":"","state":"gone","serving":false,"this":false,"started_at":null,"version":null,` +
		`"active_events":null,"waiting_requests":null,"append_queue":null,"in_flight":null,` +
		`"commits_per_second":null,"commit_p50_ms":null,"commit_p99_ms":null,"bookings_per_second":null,"http_requests_per_second":null,` +
		`"database_connections":null,"database_connections_in_use":null,"error":"No answer within a second."}],` +
		`"placement":null,"totals":{"nodes":2,"active_events":2,"waiting_requests":4,"append_queue":6,"in_flight":8,` +
		`"commits_per_second":11,"bookings_per_second":17,"http_requests_per_second":19,` +
		`"database_connections":20,"database_connections_in_use":22}}`
	if got := ask(""); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := ask("?event_id=" + exampleEvent); !strings.Contains(got, `"placement":{"event_id":"`+exampleEvent+`","node":"n2"}`) {
		t.Errorf("got %s", got)
	}
	for _, text := range []string{"", "x", exampleEvent + "0"} {
		w.do(t, "GET", "/admin/analytics/system?event_id="+text, "", "Authorization", admin).field(t, "event_id")
	}
}

func TestSystem_IsForAdministrators(t *testing.T) {
	w := newSite(t, func(config *Config) { config.System = exampleSystem })
	w.do(t, "GET", "/admin/analytics/system", "").problem(t, evently.CodeUnauthenticated)
	for _, role := range []evently.Role{evently.RoleUser, evently.RoleOrganizer} {
		token, _ := w.token(t, role)
		w.do(t, "GET", "/admin/analytics/system", "", "Authorization", token).problem(t, evently.CodeForbidden)
	}
}

func TestSystem_OfNoNodesIsNoNull(t *testing.T) {
	text, err := json.Marshal(newSystemJSON(&System{}))
	if err != nil || !strings.Contains(string(text), `"nodes":[],`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestSystem_WithoutOthersToAsk(t *testing.T) {
	w := newSite(t, nil)
	admin, _ := w.token(t, evently.RoleAdmin)
	w.do(t, "GET", "/admin/analytics/system", "", "Authorization", admin).problem(t, evently.CodeUnavailable)
}

// Nodes tell each other their status as JSON.
func TestNodeStatus_IsTheSameAfterTheWay(t *testing.T) {
	sent := exampleNode()
	sent.StartedAt = new(sent.StartedAt.UTC())
	for v, i := reflect.ValueOf(sent), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() && v.Type().Field(i).Name != "Error" {
			t.Errorf("%s is not set, and so not tested", v.Type().Field(i).Name)
		}
	}
	for _, sent := range []NodeStatus{sent, {ID: "n3", State: NodeGone, Error: new("away")}} {
		text, err := json.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		var got NodeStatus
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, sent) {
			t.Errorf("got %+v, %v; sent %s", got, err, text)
		}
	}
}
