/* certificates.h - a CA, a server's and a client's certificate for tests, made on the spot. */
#ifndef CERTIFICATES_H
#define CERTIFICATES_H

struct certificates {
    char folder[64];
    char ca[96], server[96], server_key[96], client[96], client_key[96];
    /* signed by another CA */
    char stranger[96], stranger_key[96];
};

void certificates_make(struct certificates *out);
void certificates_remove(const struct certificates *certificates);

#endif
