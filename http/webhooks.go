package http

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

func (s *Server) webhookRoutes() []route {
	const one = "/admin/webhooks/:id"
	return []route{
		{method: http.MethodGet, path: "/admin/webhooks", handle: s.listWebhooks, access: webhooksManage, query: pageQuery},
		{method: http.MethodPost, path: "/admin/webhooks", handle: s.createWebhook, access: webhooksManage, key: keyOptional},
		{method: http.MethodGet, path: one, handle: s.getWebhook, access: webhooksManage},
		{method: http.MethodPut, path: one, handle: s.reviseWebhook, access: webhooksManage},
		{method: http.MethodDelete, path: one, handle: s.deleteWebhook, access: webhooksManage, noBody: true},
		{method: http.MethodPost, path: one + "/enable", handle: s.enableWebhook, access: webhooksManage, key: keyOptional, noBody: true},
		{method: http.MethodPost, path: one + "/rotate-secret", handle: s.rotateSecret, access: webhooksManage, key: keyOptional, noBody: true},
		{method: http.MethodPost, path: one + "/test", handle: s.pingWebhook, access: webhooksManage, key: keyOptional, noBody: true},
		{method: http.MethodGet, path: one + "/deliveries", handle: s.listDeliveries, access: webhooksManage, query: pageQuery},
		{
			method: http.MethodPost, path: one + "/deliveries/:delivery_id/redeliver", handle: s.redeliver, access: webhooksManage,
			key: keyOptional, noBody: true,
		},
	}
}

// webhookBody is what is asked for.
type webhookBody struct {
	URL         string   `json:"url"`
	Events      []string `json:"events"`
	Description *string  `json:"description"`
	Active      *bool    `json:"active"`
}

// webhook checks the body and where it leads. Whether it is to be active is up to the caller.
func (s *Server) webhook(c *gin.Context, body *webhookBody) (*evently.Webhook, error) {
	webhook := &evently.Webhook{URL: body.URL}
	if body.Description != nil {
		webhook.Description = strings.TrimSpace(*body.Description)
	}
	var fields evently.FieldErrors
	for i, name := range body.Events {
		t, err := evently.ParseWebhookType(name)
		switch {
		case err != nil || !evently.WebhookTypesAll.Has(t):
			fields.Add(fmt.Sprintf("events[%d]", i), "is not a type of message")
		case webhook.Types.Has(t):
			fields.Add(fmt.Sprintf("events[%d]", i), "stands twice")
		default:
			webhook.Types.Add(t)
		}
	}
	if err := fields.Err(); err != nil {
		return nil, err
	}
	if err := webhook.Validate(); err != nil {
		return nil, err
	}
	return webhook, s.config.WebhookTarget(c.Request.Context(), webhook.URL)
}

func webhookParam(c *gin.Context) (evently.WebhookID, error) {
	id, err := evently.ParseWebhookID(c.Param("id"))
	if err != nil {
		return 0, evently.ErrNotFound // ids are opaque: a text that is none names nothing
	}
	return id, nil
}

func (s *Server) createWebhook(c *gin.Context) error {
	var body webhookBody
	if err := decode(c, &body); err != nil {
		return err
	}
	webhook, err := s.webhook(c, &body)
	if err != nil {
		return err
	}
	id, err := s.newEventID(c) // any id that a repeated request has again
	if err != nil {
		return err
	}
	secret, err := s.newWebhookSecret()
	if err != nil {
		return err
	}
	now := s.config.Now().UTC().Truncate(time.Millisecond)
	webhook.ID, webhook.Owner, webhook.CreatedAt, webhook.UpdatedAt = evently.WebhookID(id), principal(c).User, now, now
	if body.Active != nil && !*body.Active {
		webhook.Ended, webhook.EndedAt = evently.WebhookPaused, now
	}
	created, err := s.config.Webhooks.CreateWebhook(c.Request.Context(), webhook, secret)
	if err != nil {
		return err
	}
	c.Writer.Header()["Location"] = []string{"/admin/webhooks/" + created.ID.String()}
	writeJSON(c, http.StatusCreated, newWebhookSecretJSON(created, secret))
	return nil
}

func (s *Server) newWebhookSecret() ([]byte, error) {
	secret := make([]byte, evently.WebhookSecretBytes)
	if _, err := io.ReadFull(s.config.Rand, secret); err != nil {
		return nil, fmt.Errorf("draw a signing secret: %w", err)
	}
	return secret, nil
}

func (s *Server) listWebhooks(c *gin.Context) error {
	page, err := pageOf(c, webhooksByTime)
	if err != nil {
		return err
	}
	list, next, err := s.config.Webhooks.Webhooks(c.Request.Context(), managedBy(c), page)
	if err != nil {
		return err
	}
	writeList(c, list, newWebhookJSON, nextCursor(next, webhooksByTime))
	return nil
}

func (s *Server) getWebhook(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	return answerWebhook(c)(s.config.Webhooks.Webhook(c.Request.Context(), managedBy(c), id))
}

// answerWebhook answers with a webhook or fails.
func answerWebhook(c *gin.Context) func(*evently.Webhook, error) error {
	return func(webhook *evently.Webhook, err error) error {
		if err == nil {
			writeJSON(c, http.StatusOK, newWebhookJSON(webhook))
		}
		return err
	}
}

func (s *Server) reviseWebhook(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	var body webhookBody
	if err := decode(c, &body); err != nil {
		return err
	}
	now, err := s.config.Webhooks.Webhook(c.Request.Context(), managedBy(c), id)
	if err != nil {
		return err
	}
	webhook, err := s.webhook(c, &body)
	if err != nil {
		return err
	}
	webhook.ID, webhook.UpdatedAt = id, s.config.Now().UTC().Truncate(time.Millisecond)
	if active := body.Active; active != nil && !*active || active == nil && now.Ended != evently.WebhookActive {
		webhook.Ended = evently.WebhookPaused
	}
	return answerWebhook(c)(s.config.Webhooks.ReviseWebhook(c.Request.Context(), managedBy(c), webhook))
}

func (s *Server) deleteWebhook(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	if err := s.config.Webhooks.DeleteWebhook(c.Request.Context(), managedBy(c), id); err != nil {
		return err
	}
	writeNothing(c)
	return nil
}

func (s *Server) enableWebhook(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	return answerWebhook(c)(s.config.Webhooks.EnableWebhook(c.Request.Context(), managedBy(c), id, s.config.Now()))
}

func (s *Server) rotateSecret(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	secret, err := s.newWebhookSecret()
	if err != nil {
		return err
	}
	webhook, err := s.config.Webhooks.RotateSecret(c.Request.Context(), managedBy(c), id, secret, s.config.Now())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, newWebhookSecretJSON(webhook, secret))
	return nil
}

func (s *Server) pingWebhook(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	nonce, err := s.newEventID(c) // a repeated request is the same ping
	if err != nil {
		return err
	}
	delivery, err := s.config.Webhooks.Ping(c.Request.Context(), managedBy(c), id, uint64(nonce), s.config.Now())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusAccepted, newDeliveryJSON(delivery))
	return nil
}

func (s *Server) listDeliveries(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	page, err := pageOf(c, deliveriesByTime)
	if err != nil {
		return err
	}
	list, next, err := s.config.Webhooks.Deliveries(c.Request.Context(), managedBy(c), id, page)
	if err != nil {
		return err
	}
	writeList(c, list, newDeliveryJSON, nextCursor(next, deliveriesByTime))
	return nil
}

func (s *Server) redeliver(c *gin.Context) error {
	id, err := webhookParam(c)
	if err != nil {
		return err
	}
	name, err := evently.ParseDeliveryID(c.Param("delivery_id"))
	if err != nil {
		return evently.ErrNotFound
	}
	delivery, err := s.config.Webhooks.Redeliver(c.Request.Context(), managedBy(c), id, name, s.config.Now())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusAccepted, newDeliveryJSON(delivery))
	return nil
}

// webhookJSON is a webhook. Its secret is told only when it is made.
type webhookJSON struct {
	ID             string     `json:"id"`
	OwnerID        string     `json:"owner_id"`
	URL            string     `json:"url"`
	Description    string     `json:"description"`
	Events         []string   `json:"events"`
	Active         bool       `json:"active"`
	DisabledReason *string    `json:"disabled_reason"`
	DisabledAt     *time.Time `json:"disabled_at"`
	FailingSince   *time.Time `json:"failing_since"`
	OverlapUntil   *time.Time `json:"past_secret_until"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
}

func newWebhookJSON(w *evently.Webhook) webhookJSON {
	body := webhookJSON{
		ID: w.ID.String(), OwnerID: w.Owner.String(), URL: w.URL, Description: w.Description, Events: []string{},
		Active: w.Ended == evently.WebhookActive, DisabledAt: optionalTime(w.EndedAt), FailingSince: optionalTime(w.FailingSince),
		OverlapUntil: optionalTime(w.OverlapUntil), CreatedAt: w.CreatedAt.UTC(), UpdatedAt: w.UpdatedAt.UTC(),
	}
	for _, t := range w.Types.List() {
		body.Events = append(body.Events, t.String())
	}
	if !body.Active {
		reason := w.Ended.String()
		body.DisabledReason = &reason
	}
	return body
}

// webhookSecretJSON is a webhook with a secret that was made just now.
type webhookSecretJSON struct {
	webhookJSON
	Secret string `json:"secret"`
}

func newWebhookSecretJSON(w *evently.Webhook, secret []byte) webhookSecretJSON {
	return webhookSecretJSON{newWebhookJSON(w), "whsec_" + base64.StdEncoding.EncodeToString(secret)}
}

// deliveryJSON is a line of the log.
type deliveryJSON struct {
	ID            string        `json:"id"`
	Type          string        `json:"type"`
	EventID       *string       `json:"event_id"`
	Seq           *uint64       `json:"seq"`
	Status        string        `json:"status"`
	Attempts      []attemptJSON `json:"attempts"`
	CreatedAt     time.Time     `json:"created_at"`
	NextAttemptAt *time.Time    `json:"next_attempt_at"`
	EndedAt       *time.Time    `json:"ended_at"`
}

type attemptJSON struct {
	At        time.Time `json:"at"`
	LatencyMS int64     `json:"latency_ms"`
	Status    *int      `json:"status"`
	Error     *string   `json:"error"`
	Excerpt   *string   `json:"response_excerpt"`
}

func newDeliveryJSON(d *evently.Delivery) deliveryJSON {
	body := deliveryJSON{
		ID: d.ID.String(), Type: d.Type.String(), Status: d.Status.String(), Attempts: []attemptJSON{}, CreatedAt: d.CreatedAt.UTC(),
		NextAttemptAt: optionalTime(d.DueAt), EndedAt: optionalTime(d.EndedAt),
	}
	if d.Event != 0 {
		event, seq := d.Event.String(), d.Seq
		body.EventID, body.Seq = &event, &seq
	}
	for i := range d.Attempts {
		a := &d.Attempts[i]
		line := attemptJSON{At: a.At.UTC(), LatencyMS: a.LatencyMS}
		if a.HTTPCode != 0 {
			line.Status, line.Excerpt = &a.HTTPCode, &a.Excerpt
		}
		if a.Fault != "" {
			line.Error = &a.Fault
		}
		body.Attempts = append(body.Attempts, line)
	}
	return body
}
