// Package apitest holds a server to its OpenAPI document in tests: a client made by NewClient fails the test when a
// response, or a request that is not marked as wrong on purpose, is not as documented.
package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// Contract is a parsed OpenAPI 3.1 document. It is safe for concurrent use.
type Contract struct {
	router  routers.Router
	headers map[string]bool // every response header that the document knows, in canonical form
}

// Parse reads an OpenAPI document in JSON whose references all stay inside it.
func Parse(document []byte) (*Contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, fmt.Errorf("parse OpenAPI document: %w", err)
	}
	if !doc.IsOpenAPI31OrLater() {
		return nil, fmt.Errorf("parse OpenAPI document: version %q, not 3.1", doc.OpenAPI)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("parse OpenAPI document: %w", err)
	}
	contract := &Contract{router: router, headers: map[string]bool{}}
	for _, path := range doc.Paths.Map() {
		for _, operation := range path.Operations() {
			for _, response := range operation.Responses.Map() {
				for name := range response.Value.Headers {
					contract.headers[http.CanonicalHeaderKey(name)] = true
				}
			}
		}
	}
	return contract, nil
}

// exchange is a request with the operation that the document has for it.
type exchange struct {
	contract *Contract
	request  *http.Request // of its own, with method GET for HEAD: the document describes GET for both
	head     bool
	body     []byte
	route    *routers.Route
	params   map[string]string
	missing  error // why there is no route
}

func (c *Contract) exchange(request *http.Request, body []byte) *exchange {
	x := &exchange{contract: c, request: request.Clone(request.Context()), head: request.Method == http.MethodHead, body: body}
	if x.head {
		x.request.Method = http.MethodGet
	}
	x.request.ContentLength = int64(len(body))
	x.request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	x.request.Body = io.NopCloser(bytes.NewReader(body))
	x.route, x.params, x.missing = c.router.FindRoute(x.request)
	return x
}

func (x *exchange) input() *openapi3filter.RequestValidationInput {
	options := &openapi3filter.Options{
		MultiError: true, SkipSettingDefaults: true, IncludeResponseStatus: true, RejectWhenRequestBodyNotSpecified: true,
		AuthenticationFunc: bearer,
	}
	// The validator's own text repeats the schema and the value.
	options.WithCustomSchemaErrorFunc(func(err *openapi3.SchemaError) string {
		text := fmt.Sprintf("/%s: %s", strings.Join(err.JSONPointer(), "/"), err.Reason)
		if err.Origin != nil {
			text += fmt.Sprintf(" (%v)", err.Origin)
		}
		return text
	})
	return &openapi3filter.RequestValidationInput{Request: x.request, PathParams: x.params, Route: x.route, Options: options}
}

// checkRequest returns what in the request the document does not allow.
func (x *exchange) checkRequest() error {
	if x.missing != nil {
		return fmt.Errorf("is not in the document: %w", x.missing)
	}
	var found []error
	for name := range x.request.URL.Query() {
		if x.route.Operation.Parameters.GetByInAndName(openapi3.ParameterInQuery, name) == nil &&
			x.route.PathItem.Parameters.GetByInAndName(openapi3.ParameterInQuery, name) == nil {
			found = append(found, fmt.Errorf("query parameter %q is not documented", name))
		}
	}
	if len(x.body) > 0 {
		found = append(found, strictJSON(x.body))
	}
	found = append(found, openapi3filter.ValidateRequest(x.request.Context(), x.input()))
	return errors.Join(found...)
}

// checkResponse returns what in the response the document does not have.
func (x *exchange) checkResponse(response *http.Response, body []byte) error {
	if x.missing != nil {
		return x.checkUnrouted(response, body)
	}
	documented := x.route.Operation.Responses.Status(response.StatusCode)
	if documented == nil {
		return fmt.Errorf("status %d is not documented", response.StatusCode)
	}
	found := []error{x.checkHeaders(documented.Value, response.Header)}
	input := x.input()
	kind := response.Header.Get("Content-Type")
	switch {
	case x.head || len(documented.Value.Content) == 0:
		if len(body) > 0 {
			found = append(found, fmt.Errorf("has a body of %d bytes, where none is documented", len(body)))
		}
	case isJSON(kind):
		found = append(found, strictJSON(body))
	case documented.Value.Content.Get(kind) == nil:
		found = append(found, fmt.Errorf("content type %q is not documented", kind))
	}
	// The validator takes no HEAD for what it is, and of texts it knows the plain one alone.
	input.Options.ExcludeResponseBody = x.head || !isJSON(kind)
	found = append(found, openapi3filter.ValidateResponse(x.request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: response.StatusCode, Header: response.Header,
		Body: io.NopCloser(bytes.NewReader(body)), Options: input.Options,
	}))
	return errors.Join(found...)
}

// checkHeaders also covers the statuses that the validator of responses passes over, 304 among them.
func (x *exchange) checkHeaders(documented *openapi3.Response, got http.Header) error {
	var found []error
	names := map[string]bool{}
	for name, header := range documented.Headers {
		names[http.CanonicalHeaderKey(name)] = true
		if header.Value.Required && got.Get(name) == "" {
			found = append(found, fmt.Errorf("header %s is missing", name))
		}
	}
	for name := range got {
		if x.contract.headers[name] && !names[name] {
			found = append(found, fmt.Errorf("header %s is not documented for this status", name))
		}
	}
	return errors.Join(found...)
}

// checkUnrouted: what stands outside the document is answered 404 or 405, as a problem.
func (x *exchange) checkUnrouted(response *http.Response, body []byte) error {
	var found []error
	want := http.StatusNotFound
	if errors.Is(x.missing, routers.ErrMethodNotAllowed) {
		want = http.StatusMethodNotAllowed
		if response.Header.Get("Allow") == "" {
			found = append(found, errors.New("header Allow is missing"))
		}
	}
	if response.StatusCode != want {
		found = append(found, fmt.Errorf("status is %d, want %d: %w", response.StatusCode, want, x.missing))
	}
	if kind := response.Header.Get("Content-Type"); mediaType(kind) != "application/problem+json" {
		found = append(found, fmt.Errorf("content type is %q, want application/problem+json", kind))
	}
	if !x.head {
		found = append(found, strictJSON(body))
	}
	return errors.Join(found...)
}

// bearer accepts any token: whether it is a good one is the server's to decide.
func bearer(_ context.Context, input *openapi3filter.AuthenticationInput) error {
	header := input.RequestValidationInput.Request.Header.Get("Authorization")
	if token, found := strings.CutPrefix(header, "Bearer "); !found || token == "" {
		return errors.New("no bearer token")
	}
	return nil
}

func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

func isJSON(contentType string) bool {
	kind := mediaType(contentType)
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}

// strictJSON finds what decoding lets pass: data after the value and names that stand twice in one object.
func strictJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := uniqueNames(decoder); err != nil {
		return fmt.Errorf("body is not strict JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("body is not strict JSON: data after the value")
	}
	return nil
}

func uniqueNames(decoder *json.Decoder) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	var names []string
	for token == json.Delim('{') || token == json.Delim('[') {
		if !decoder.More() {
			_, err := decoder.Token()
			return err
		}
		if token == json.Delim('{') {
			name, err := decoder.Token()
			if err != nil {
				return err
			}
			if slices.Contains(names, name.(string)) {
				return fmt.Errorf("name %q stands twice", name)
			}
			names = append(names, name.(string))
		}
		if err := uniqueNames(decoder); err != nil {
			return err
		}
	}
	return nil
}
