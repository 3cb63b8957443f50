package apitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
)

// NewClient returns a client of the server at baseURL that holds it to the document the server gives at /openapi.json.
// It does not follow redirects, and closes its connections when the test ends. To check a response takes some milliseconds:
// use another client to make load.
func NewClient(t testing.TB, baseURL string) *http.Client {
	t.Helper()
	base := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(base.CloseIdleConnections)
	contract, err := fetch(t.Context(), base, baseURL+"/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{
		Transport:     &Transport{T: t, Contract: contract, Base: base},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func fetch(ctx context.Context, base http.RoundTripper, url string) (*Contract, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch contract: %w", err)
	}
	response, err := base.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("fetch contract: %w", err)
	}
	document, err := readAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("fetch contract from %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch contract from %s: status %d: %.500s", url, response.StatusCode, document)
	}
	return Parse(document)
}

// Transport is a RoundTripper that reports to T every request and response that is not as Contract has it. Preflight
// requests (OPTIONS) pass unchecked; the document does not describe them. Bodies are read whole.
type Transport struct {
	T        testing.TB
	Contract *Contract
	Base     http.RoundTripper // nil: one that uses no proxy and keeps no connections
}

// direct is not http.DefaultTransport, which would go by the proxies of the environment.
var direct = &http.Transport{DisableKeepAlives: true}

// RoundTrip sends the request whatever is found wrong with it, so that one run shows all that is.
func (tr *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	tr.T.Helper()
	base := tr.Base
	if base == nil {
		base = direct
	}
	if request.Method == http.MethodOptions {
		return base.RoundTrip(request)
	}
	body, err := readAll(request.Body)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	x := tr.Contract.exchange(request, body)
	sent := request
	if request.Body != nil {
		sent = request.Clone(request.Context())
		sent.Body = io.NopCloser(bytes.NewReader(body))
	}
	if wrong := request.Context().Value(wrongKey{}) != nil; !wrong {
		if err := x.checkRequest(); err != nil {
			tr.T.Errorf("%s %s: request %.500q: %v", request.Method, request.URL, body, err)
		}
	}
	response, err := base.RoundTrip(sent)
	if err != nil {
		return nil, err
	}
	answer, err := readAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	response.Body = io.NopCloser(bytes.NewReader(answer))
	if err := x.checkResponse(response, answer); err != nil {
		tr.T.Errorf("%s %s: response %d %.1000q: %v", request.Method, request.URL, response.StatusCode, answer, err)
	}
	return response, nil
}

type wrongKey struct{}

// Wrong marks the context of requests that break the contract on purpose: they are sent unchecked. The responses to them are
// checked like any other, and must be 404 or 405 problems where the document has no such path or method.
func Wrong(ctx context.Context) context.Context { return context.WithValue(ctx, wrongKey{}, true) }

func readAll(body io.ReadCloser) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	data, err := io.ReadAll(body)
	return data, errors.Join(err, body.Close())
}
