// Package socketio speaks the part of Socket.IO that a vantage6 server needs: protocol 5 of
// Socket.IO over protocol 4 of Engine.IO, on a websocket, one namespace per connection, text
// packets only.
//
// It has a client side (Dial) and a server side (Accept), so that the stand-in server and the
// tests speak to the same code that a real server hears. It knows events and their JSON
// arguments, not what they mean: nothing about vantage6, tokens, reconnecting or back-off may
// enter here.
//
// Not supported, and refused or ignored as the comments say: HTTP long polling, binary
// attachments, more than one namespace per connection, waiting for acknowledgements.
package socketio
