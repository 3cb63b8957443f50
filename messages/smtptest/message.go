package smtptest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

// Message is a mail as its reader sees it.
type Message struct {
	From        string
	To          []string
	ID          string // its Message-ID, without the angle brackets
	Header      mail.Header
	Subject     string
	Text, HTML  string
	Attachments []Attachment
	Raw         []byte
}

// Attachment is a file that came with a Message.
type Attachment struct {
	Name, MediaType string
	Content         []byte
}

func parse(raw []byte) (*Message, error) {
	read, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	m := &Message{Header: read.Header, Raw: raw, ID: strings.Trim(read.Header.Get("Message-ID"), "<>")}
	if m.Subject, err = new(mime.WordDecoder).DecodeHeader(read.Header.Get("Subject")); err != nil {
		return nil, err
	}
	return m, m.part(read.Header.Get, read.Body)
}

// part reads a part, or the parts of a part.
func (m *Message) part(header func(string) string, body io.Reader) error {
	mediaType, params, err := mime.ParseMediaType(header("Content-Type"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		for parts := multipart.NewReader(body, params["boundary"]); ; {
			part, err := parts.NextRawPart()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if err := m.part(part.Header.Get, part); err != nil {
				return err
			}
		}
	}
	switch encoding := strings.ToLower(header("Content-Transfer-Encoding")); encoding {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "", "7bit", "8bit":
	default:
		return fmt.Errorf("unknown encoding %q", encoding)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	disposition, named, err := mime.ParseMediaType(header("Content-Disposition"))
	switch {
	case err == nil && disposition == "attachment":
		m.Attachments = append(m.Attachments, Attachment{named["filename"], header("Content-Type"), content})
	case mediaType == "text/plain":
		m.Text = strings.ReplaceAll(string(content), "\r\n", "\n")
	case mediaType == "text/html":
		m.HTML = strings.ReplaceAll(string(content), "\r\n", "\n")
	default:
		return fmt.Errorf("unexpected part %q", mediaType)
	}
	return nil
}
