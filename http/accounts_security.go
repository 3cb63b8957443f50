package http

import (
	"fmt"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

type securityEntryJSON struct {
	At        time.Time            `json:"at"`
	Kind      evently.SecurityKind `json:"kind"`
	ActorID   *string              `json:"actor_id"`
	SessionID *string              `json:"session_id"`
	IP        string               `json:"ip"`
	UserAgent string               `json:"user_agent"`
	RequestID string               `json:"request_id"`
	Detail    map[string]string    `json:"detail"`
}

func newSecurityEntryJSON(entry *evently.SecurityEntry) securityEntryJSON {
	told := securityEntryJSON{At: entry.At.UTC(), Kind: entry.Kind, RequestID: entry.RequestID, Detail: entry.Detail}
	if entry.Actor != 0 {
		told.ActorID = new(entry.Actor.String())
	}
	if entry.Actor == 0 || entry.Actor == entry.User { // where administrators are is their own affair
		told.IP, told.UserAgent = entry.IP, entry.UserAgent
		if entry.Session != (evently.SessionID{}) {
			told.SessionID = new(sessionText(entry.Session))
		}
	}
	if told.Detail == nil {
		told.Detail = map[string]string{}
	}
	return told
}

// securityLog is what happened to one's own account.
func (s *Server) securityLog(c *gin.Context) error {
	page, err := pageOf(c, securityByNumber)
	if err != nil {
		return err
	}
	entries, next, err := s.config.Accounts.SecurityLog(c.Request.Context(), principal(c).User, page)
	if err != nil {
		return fmt.Errorf("read the security log: %w", err)
	}
	writeList(c, entries, newSecurityEntryJSON, nextCursor(next, securityByNumber))
	return nil
}
