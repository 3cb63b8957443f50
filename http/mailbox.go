package http

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/evently/evently"
)

// mailboxLimit is how many mails are shown unless the query says otherwise; evently.PageLimitMax at most.
const mailboxLimit = 50

type mailboxJSON struct {
	Data []mailJSON `json:"data"`
}

// mailJSON is a mail as it would have gone to a server.
type mailJSON struct {
	ID          string           `json:"id"` // its Message-ID
	To          string           `json:"to"`
	From        string           `json:"from"`
	Subject     string           `json:"subject"`
	Text        string           `json:"text"`
	HTML        string           `json:"html"`
	Attachments []attachmentJSON `json:"attachments"`
	Kind        string           `json:"kind"`
	At          time.Time        `json:"at"`
}

type attachmentJSON struct {
	Name      string `json:"name"`
	MediaType string `json:"media_type"`
	Content   []byte `json:"content"` // in base64
}

// devMailbox shows the mails to ?to=, or to everybody: newest first, ?limit= of them. Addresses are in lower case, as accounts keep
// them.
func (s *Server) devMailbox(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit := mailboxLimit
	if text := query.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > evently.PageLimitMax {
			operatorProblem(w, &evently.Error{Code: evently.CodeInvalidRequest, Detail: "The limit is not 1 to 100."})
			return
		}
	}
	messages, err := s.config.Mailbox.Messages(r.Context(), strings.ToLower(strings.TrimSpace(query.Get("to"))), limit)
	if err != nil {
		s.config.Logger.ErrorContext(r.Context(), "the mailbox cannot be read", "error", err)
		operatorProblem(w, evently.ErrUnavailable)
		return
	}
	list := mailboxJSON{Data: []mailJSON{}}
	for i := range messages {
		m := &messages[i]
		shown := mailJSON{
			ID: m.ID, To: m.To, From: m.From, Subject: m.Subject, Text: m.Text, HTML: m.HTML, Attachments: []attachmentJSON{},
			Kind: m.Kind.String(), At: m.At,
		}
		for _, file := range m.Attachments {
			shown.Attachments = append(shown.Attachments, attachmentJSON(file))
		}
		list.Data = append(list.Data, shown)
	}
	writeOperator(w, http.StatusOK, jsonMediaType, encoded(&list))
}

// operatorProblem answers a request to the listener of the operators, where requests have no ids, with an error.
func operatorProblem(w http.ResponseWriter, refusal *evently.Error) {
	kind := problemKinds[refusal.Code]
	writeOperator(w, kind.status, problemMediaType, appendProblem(nil, refusal, kind, ""))
}

func writeOperator(w http.ResponseWriter, status int, mediaType []string, body []byte) {
	w.Header()["Content-Type"] = mediaType
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away is no failure of the server
}
